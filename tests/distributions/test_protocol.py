"""Means asked for by name."""

from __future__ import annotations

import pytest
import torch

from cellvae.distributions.protocol import pick_mean
from cellvae.errors import InvalidOptionError

MU, SCALE = torch.tensor(3.0), torch.tensor(0.3)


def test_each_name_gives_its_mean() -> None:
    assert pick_mean("mu", MU, SCALE) is MU
    assert pick_mean("scale", MU, SCALE) is SCALE


def test_another_name_is_refused_with_the_closest_one() -> None:
    with pytest.raises(InvalidOptionError, match="got 'scales'. Did you mean 'scale'?"):
        pick_mean("scales", MU, SCALE)


def test_a_missing_normalized_mean_is_an_error() -> None:
    with pytest.raises(InvalidOptionError, match="request 'mu'"):
        pick_mean("scale", MU, None)

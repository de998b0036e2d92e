"""Means asked for by name."""

from __future__ import annotations

import pytest
import torch

from cellvae.distributions.normalized import choose_normalized
from cellvae.errors import InvalidOptionError

MU, SCALE = torch.tensor(3.0), torch.tensor(0.3)


def test_each_name_gives_its_mean() -> None:
    assert choose_normalized("mu", MU, SCALE) is MU
    assert choose_normalized("scale", MU, SCALE) is SCALE


def test_another_name_is_refused_with_the_closest_one() -> None:
    with pytest.raises(InvalidOptionError, match="got 'scales'. Did you mean 'scale'?"):
        choose_normalized("scales", MU, SCALE)


def test_a_missing_normalized_mean_is_an_error() -> None:
    with pytest.raises(InvalidOptionError, match="ask for 'mu'"):
        choose_normalized("scale", MU, None)

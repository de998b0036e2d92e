"""The normal distribution that keeps a normalized mean."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.distributions import kl_divergence

from cellvae.distributions.normal import Normal

LOC = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
SCALE = torch.tensor(0.7, dtype=torch.float64)


def test_log_prob_is_that_of_scipy() -> None:
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)[:, None]
    expected = torch.from_numpy(stats.norm.logpdf(x, LOC, SCALE))
    torch.testing.assert_close(Normal(LOC, SCALE).log_prob(x), expected)


def test_divergence_of_torch_applies() -> None:
    one = Normal(LOC, SCALE)
    other = Normal(torch.zeros_like(LOC), torch.ones_like(LOC))
    expected = 0.5 * (SCALE**2 + LOC**2 - 1 - 2 * SCALE.log())
    torch.testing.assert_close(kl_divergence(one, other), expected)


def test_expanding_keeps_the_normalized_mean() -> None:
    wide = Normal(LOC, SCALE, normal_mu=LOC / 2).expand((4, 3))
    assert wide.batch_shape == (4, 3)
    assert wide.normal_mu is not None
    assert wide.normal_mu.shape == wide.rsample().shape == (4, 3)
    assert Normal(LOC, SCALE).expand((4, 3)).normal_mu is None


def test_scale_by_name_is_the_normalized_mean() -> None:
    values = Normal(LOC, SCALE, normal_mu=LOC / 2)
    assert torch.equal(values.get_normalized("mu"), LOC)
    assert torch.equal(values.get_normalized("scale"), LOC / 2)


def test_invalid_scale_is_refused_when_asked_to_check() -> None:
    Normal(LOC, -SCALE)
    with pytest.raises(ValueError, match="parameter scale"):
        Normal(LOC, -SCALE, validate_args=True)

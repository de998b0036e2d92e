"""Loss of a Pyro model where divergences have a closed form, where they have none, and errors."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from cellvae.errors import InvalidOptionError
from cellvae.model.components.pyro_elbo import pyro_elbo_loss

COUNTS = torch.tensor([[1.0, 4.0], [0.0, 2.0], [3.0, 3.0]])


def written(prior: dist.Distribution, plate: str = "cells") -> Callable[[Tensor], None]:
    """Model of counts whose rate has this prior."""

    def model(counts: Tensor) -> None:
        with pyro.plate(plate, 30, subsample=counts):
            rate = pyro.sample("rate", prior.expand([len(counts)]))
            pyro.sample("counts", dist.Poisson(rate.unsqueeze(-1)).to_event(1), obs=counts)

    return model


def told(plate: str = "cells") -> Callable[[Tensor], None]:
    """Guide of the rate."""

    def guide(counts: Tensor) -> None:
        with pyro.plate(plate, 30, subsample=counts):
            pyro.sample("rate", dist.LogNormal(counts.mean(dim=-1), 0.2))

    return guide


def test_a_divergence_without_a_closed_form_is_that_of_the_draw() -> None:
    prior = dist.Gamma(2.0, 1.0)
    torch.manual_seed(0)
    loss = pyro_elbo_loss(written(prior), told(), COUNTS, n_cells=30)
    torch.manual_seed(0)
    q = torch.distributions.LogNormal(COUNTS.mean(dim=-1), 0.2)
    rate = q.rsample()
    counts = torch.distributions.Poisson(rate.unsqueeze(-1))
    torch.testing.assert_close(loss.total_reconstruction, -counts.log_prob(COUNTS).sum(dim=-1))
    torch.testing.assert_close(loss.total_kl, q.log_prob(rate) - prior.log_prob(rate))
    torch.testing.assert_close(loss.loss, (loss.total_reconstruction + loss.total_kl).mean())
    assert loss.kl_global == 0


def test_one_with_a_closed_form_does_not_depend_on_the_draw() -> None:
    prior = dist.LogNormal(0.0, 1.0)
    losses = [pyro_elbo_loss(written(prior), told(), COUNTS, n_cells=30) for _ in range(2)]
    assert not torch.equal(losses[0].total_reconstruction, losses[1].total_reconstruction)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(COUNTS.mean(dim=-1), 0.2), torch.distributions.Normal(0.0, 1.0)
    )
    for loss in losses:
        torch.testing.assert_close(loss.total_kl, expected)


def test_a_plate_of_another_name_has_to_be_named() -> None:
    pair = written(dist.Gamma(2.0, 1.0), "spots"), told("spots")
    with pytest.raises(InvalidOptionError, match=r"pyro\.plate\('cells'"):
        pyro_elbo_loss(*pair, COUNTS, n_cells=30)
    assert pyro_elbo_loss(*pair, COUNTS, n_cells=30, cells="spots").total_reconstruction.shape == (
        3,
    )

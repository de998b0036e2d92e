"""Counts drawn at random, of which only those above zero are made."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cellvae.distributions.functional.log_prob import MAX_INVERSE_DISPERSION, MIN_MEAN
from cellvae.distributions.negative_binomial import HIGHEST_RATE, NegativeBinomial
from cellvae.distributions.poisson import Poisson
from cellvae.distributions.protocol import CountDistribution
from cellvae.distributions.zero_inflated import ZeroInflatedNegativeBinomial

MAX_CLUSTERS = 2.0
"""Expected clusters above which a count is seldom zero, and is drawn until it is not."""


class SparseCounts(NamedTuple):
    """Counts that are not zero, and where they are."""

    indices: Int[Tensor, " nonzero"]
    """Positions in the flattened tensor of all counts, rising."""
    values: Float[Tensor, " nonzero"]


def sample_sparse(counts: CountDistribution) -> SparseCounts:
    """One draw of each count, as `counts.sample()` has it, in time that goes with those above zero.

    Whether a count is zero is a comparison of one uniform number with a closed form; only where it
    is not, a distribution is drawn from. The draws are exact.
    """
    if isinstance(counts, NegativeBinomial):
        return sample_negative_binomial(counts)
    if isinstance(counts, Poisson):
        places = bernoulli_indices(-torch.expm1(-counts.rate))
        rate = counts.rate.reshape(-1)[places]
        return SparseCounts(places, zero_truncated_poisson(rate.double()).to(rate.dtype))
    dense = counts.sample().reshape(-1)
    places = dense.nonzero().squeeze(-1)
    return SparseCounts(places, dense[places])


def sample_negative_binomial(counts: NegativeBinomial) -> SparseCounts:
    """One draw of each count, zero inflated or not."""
    theta = counts.theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
    clusters = torch.log1p(counts.mu / theta).mul_(theta)
    probability = torch.expm1(-clusters).neg_()
    if isinstance(counts, ZeroInflatedNegativeBinomial):
        probability *= (-counts.zi_logits).sigmoid()
    places = bernoulli_indices(probability)
    mu, theta, clusters = (x.reshape(-1)[places] for x in (counts.mu, theta, clusters))
    few = (clusters < MAX_CLUSTERS).nonzero().squeeze(-1)
    many = (clusters >= MAX_CLUSTERS).nonzero().squeeze(-1)
    values = torch.empty_like(mu)
    clustered = zero_truncated_nb_by_sum(mu[few].double(), theta[few].double())
    values[few] = clustered.to(values.dtype)
    values[many] = zero_truncated_nb_by_rejection(mu[many], theta[many])
    return SparseCounts(places, values)


def bernoulli_indices(probability: Tensor) -> Tensor:
    """Positions, in the flattened tensor, of events that happen with these probabilities."""
    return (torch.rand_like(probability) < probability).reshape(-1).nonzero().squeeze(-1)


def zero_truncated_poisson(rate: Tensor) -> Tensor:
    """Poisson counts that are not zero: one event, and those after it.

    The time of the first event, of unit rate and before `rate`, is drawn by inversion.
    """
    first = -torch.log1p(torch.rand_like(rate) * torch.expm1(-rate))
    return 1 + torch.poisson((rate - first).clamp(0, HIGHEST_RATE))


def zero_truncated_nb_by_sum(mu: Tensor, theta: Tensor) -> Tensor:
    r"""Negative binomial counts that are not zero, as sums of few clusters.

    The number of clusters is Poisson with mean :math:`\theta \log(1 + \mu / \theta)`, the size of
    each is logarithmic (Quenouille 1949) and drawn as in Kemp (1981).
    """
    height = torch.log1p(mu / theta)
    further = (zero_truncated_poisson(theta * height) - 1).long()
    owner = torch.repeat_interleave(further)
    return sample_logarithmic(height).index_add_(0, owner, sample_logarithmic(height[owner]))


def sample_logarithmic(height: Tensor) -> Tensor:
    """Counts of the logarithmic distribution with the parameter 1 - exp(-height)."""
    inner = torch.log1p(-torch.exp(-height * (1 - torch.rand_like(height))))
    return 1 + torch.floor(torch.log1p(-torch.rand_like(height)) / inner)


def zero_truncated_nb_by_rejection(mu: Tensor, theta: Tensor) -> Tensor:
    """Negative binomial counts that are not zero, where few would be: zeros are drawn again."""
    values = NegativeBinomial(mu=mu, theta=theta).sample()
    again = (values == 0).nonzero().squeeze(-1)
    while len(again):
        values[again] = NegativeBinomial(mu=mu[again], theta=theta[again]).sample()
        again = again[values[again] == 0]
    return values

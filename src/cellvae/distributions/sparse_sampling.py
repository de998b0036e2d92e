"""Random counts in sparse form, without sampling those that are zero."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cellvae.distributions.functional.log_prob import MAX_INVERSE_DISPERSION, MIN_MEAN
from cellvae.distributions.negative_binomial import MAX_RATE, NegativeBinomial
from cellvae.distributions.poisson import Poisson
from cellvae.distributions.protocol import CountDistribution
from cellvae.distributions.zero_inflated import ZeroInflatedNegativeBinomial

MAX_CLUSTERS = 2.0
"""Expected number of clusters above which a count is rarely zero, so that rejection is fast."""


class SparseCounts(NamedTuple):
    """Nonzero counts and their indices."""

    indices: Int[Tensor, " nonzero"]
    """Indices into the flattened tensor of all counts, sorted."""
    values: Float[Tensor, " nonzero"]


def sample_sparse(counts: CountDistribution) -> SparseCounts:
    """Sample each count once, like `counts.sample()`, in time proportional to the nonzero counts.

    One uniform random number decides whether a count is zero, by its closed-form probability; the
    nonzero counts are then sampled from the zero-truncated distribution. The samples are exact.
    """
    if isinstance(counts, NegativeBinomial):
        return sample_negative_binomial(counts)
    if isinstance(counts, Poisson):
        indices = bernoulli_indices(-torch.expm1(-counts.rate))
        rate = counts.rate.reshape(-1)[indices]
        return SparseCounts(indices, zero_truncated_poisson(rate.double()).to(rate.dtype))
    dense = counts.sample().reshape(-1)
    indices = dense.nonzero().squeeze(-1)
    return SparseCounts(indices, dense[indices])


def sample_negative_binomial(counts: NegativeBinomial) -> SparseCounts:
    """Sample each count once, from a negative binomial with or without zero inflation."""
    theta = counts.theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
    clusters = torch.log1p(counts.mu / theta).mul_(theta)
    probability = torch.expm1(-clusters).neg_()
    if isinstance(counts, ZeroInflatedNegativeBinomial):
        probability *= (-counts.zi_logits).sigmoid()
    indices = bernoulli_indices(probability)
    mu, theta, clusters = (x.reshape(-1)[indices] for x in (counts.mu, theta, clusters))
    few = (clusters < MAX_CLUSTERS).nonzero().squeeze(-1)
    many = (clusters >= MAX_CLUSTERS).nonzero().squeeze(-1)
    values = torch.empty_like(mu)
    sums = zero_truncated_nb_by_sum(mu[few].double(), theta[few].double())
    values[few] = sums.to(values.dtype)
    values[many] = zero_truncated_nb_by_rejection(mu[many], theta[many])
    return SparseCounts(indices, values)


def bernoulli_indices(probability: Tensor) -> Tensor:
    """Indices, into the flattened tensor, of events that happen with these probabilities."""
    return (torch.rand_like(probability) < probability).reshape(-1).nonzero().squeeze(-1)


def zero_truncated_poisson(rate: Tensor) -> Tensor:
    """Zero-truncated Poisson random numbers: the first event, and the number of those after it.

    The events have unit rate and happen before the time `rate`; the time of the first is sampled by
    inversion.
    """
    first = -torch.log1p(torch.rand_like(rate) * torch.expm1(-rate))
    return 1 + torch.poisson((rate - first).clamp(0, MAX_RATE))


def zero_truncated_nb_by_sum(mu: Tensor, theta: Tensor) -> Tensor:
    r"""Zero-truncated negative binomial random numbers, as sums over a few clusters.

    The number of clusters is Poisson with mean :math:`\theta \log(1 + \mu / \theta)`; their sizes
    have a logarithmic distribution (Quenouille 1949), sampled as in Kemp (1981).
    """
    height = torch.log1p(mu / theta)
    n_further = (zero_truncated_poisson(theta * height) - 1).long()
    index = torch.repeat_interleave(n_further)
    return sample_logarithmic(height).index_add_(0, index, sample_logarithmic(height[index]))


def sample_logarithmic(height: Tensor) -> Tensor:
    """Random numbers of the logarithmic distribution with the parameter 1 - exp(-height)."""
    inner = torch.log1p(-torch.exp(-height * (1 - torch.rand_like(height))))
    return 1 + torch.floor(torch.log1p(-torch.rand_like(height)) / inner)


def zero_truncated_nb_by_rejection(mu: Tensor, theta: Tensor) -> Tensor:
    """Zero-truncated negative binomial random numbers; zeros are rejected and sampled again."""
    values = NegativeBinomial(mu=mu, theta=theta).sample()
    zeros = (values == 0).nonzero().squeeze(-1)
    while len(zeros):
        values[zeros] = NegativeBinomial(mu=mu[zeros], theta=theta[zeros]).sample()
        zeros = zeros[values[zeros] == 0]
    return values

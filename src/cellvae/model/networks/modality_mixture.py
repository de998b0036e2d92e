"""Posteriors of the modalities of a cell: their mixture, and the penalty on their distance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Normal

ModalityWeights = Literal["equal", "cell", "universal"]
ModalityPenalty = Literal["Jeffreys", "MMD", "None"]


def mix_posteriors(
    posteriors: Sequence[Normal],
    measured: Bool[Tensor, "cells modalities"],
    logits: Float[Tensor, "#cells modalities"],
) -> Normal:
    r"""Posterior of each cell from those of its measured modalities, [cells, latent].

    With the weights :math:`w`, a softmax over the measured modalities of a cell, the mean is
    :math:`\sum_m w_m \mu_m` and the variance is :math:`\sum_m \sqrt{w_m} \sigma^2_m`, as in
    scvi-tools. The posterior of a cell without any modality is the prior, a standard normal.

    Parameters
    ----------
    posteriors
        Posterior of each modality, [cells, latent].
    measured
        Which modalities were measured in each cell.
    logits
        Logarithm of the weight of each modality, up to a constant.
    """
    any_measured = measured.any(dim=-1, keepdim=True)
    # The rows of cells without a modality are replaced below; they must not be NaN.
    masked = logits.expand(measured.shape).masked_fill(~measured & any_measured, -torch.inf)
    weights = masked.softmax(dim=-1)
    # The gradient of a square root is infinite at 0.
    roots = torch.where(measured, weights, 1.0).sqrt() * measured
    mean = torch.stack([posterior.loc for posterior in posteriors], dim=-1)
    variance = torch.stack([posterior.variance for posterior in posteriors], dim=-1)
    mean = (mean * weights.unsqueeze(-2)).sum(dim=-1)
    variance = (variance * roots.unsqueeze(-2)).sum(dim=-1)
    return Normal(
        torch.where(any_measured, mean, 0.0),
        torch.where(any_measured, variance, 1.0).sqrt(),
        validate_args=False,
    )


def jeffreys_divergence(first: Normal, second: Normal) -> Float[Tensor, "*cells latent"]:
    """Jeffreys divergence: the KL divergences in both directions, summed, in nats."""
    return jeffreys_of_moments(first.loc - second.loc, first.variance, second.variance)


def jeffreys_of_moments(
    difference: Float[Tensor, "*cells latent"],
    first: Float[Tensor, "*cells latent"],
    second: Float[Tensor, "*cells latent"],
) -> Float[Tensor, "*cells latent"]:
    """Jeffreys divergence of normals from the difference of their means and variances, in nats.

    The logarithms of the variances cancel in the sum of both directions.
    """
    squared = difference.square()
    return 0.5 * ((squared + first) / second + (squared + second) / first) - 1.0


def jeffreys_penalty(first: Normal, second: Normal) -> Float[Tensor, " cells"]:
    """Jeffreys divergence of normals with the square roots of the standard deviations, in nats.

    This is the penalty of scvi-tools: for standard deviations below 1, which posteriors have, it is
    smaller than the divergence of the posteriors themselves.
    """
    # The variances of these normals are the standard deviations of the posteriors.
    return jeffreys_of_moments(first.loc - second.loc, first.scale, second.scale).sum(dim=-1)


def mean_distance(first: Normal, second: Normal) -> Float[Tensor, " cells"]:
    """Euclidean distance of the means: the maximum mean discrepancy with a linear kernel."""
    return torch.linalg.vector_norm(first.loc - second.loc, dim=-1)


def modality_penalty(
    kind: ModalityPenalty,
    posteriors: Sequence[Normal],
    measured: Bool[Tensor, "cells modalities"],
) -> Float[Tensor, " cells"]:
    """Penalty on the distance of the posteriors of all pairs of measured modalities of a cell.

    Parameters
    ----------
    kind
        `"Jeffreys"`, `"MMD"`, or `"None"` for zeros. With `"MMD"` the penalty of every cell is the
        sum over the cells of the batch, as in scvi-tools.
    posteriors
        Posterior of each modality, [cells, latent].
    measured
        Which modalities were measured in each cell; a pair with one that was not adds nothing.
    """
    total = posteriors[0].loc.new_zeros(len(measured))
    if kind == "None":
        return total
    penalty = jeffreys_penalty if kind == "Jeffreys" else mean_distance
    for i, j in combinations(range(len(posteriors)), 2):
        paired = measured[:, i] & measured[:, j]
        total = total + torch.where(paired, penalty(posteriors[i], posteriors[j]), 0.0)
    return total.sum().expand(len(total)) if kind == "MMD" else total

"""Probabilities of a change of expression, from posterior samples of two populations."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from cellvae.errors import InvalidOptionError

MIN_PROBABILITY = 1e-8
"""Added to probabilities before a logarithm is taken."""
MIN_PSEUDOCOUNT = 1e-10
TestMode: TypeAlias = Literal["two", "three", "up"]
"""Which directions of a change count."""
UNEXPRESSED = 0.01
"""Mean count below which a gene is considered not expressed in a population."""


class ChangeSummary(NamedTuple):
    """Distribution of the change of each gene, [genes]."""

    mean: Tensor
    median: Tensor
    std: Tensor
    min: Tensor
    max: Tensor


def log_fold_change(
    first: Float[Tensor, "samples genes"],
    second: Float[Tensor, "samples genes"],
    pseudocount: float,
) -> Float[Tensor, "samples genes"]:
    """Log2 fold change of expression, with a pseudocount added to both values."""
    return (first + pseudocount).log2_().sub_((second + pseudocount).log2_())


def probability_of_change(
    changes: Float[Tensor, "samples genes"], delta: float, test_mode: TestMode
) -> Float[Tensor, " genes"]:
    """Posterior probability that the change of a gene is at least delta, up or down.

    Parameters
    ----------
    changes
        Samples of the change.
    delta
        Smallest change that counts, in the units of `changes`.
    test_mode
        `"three"`: probability of the more probable of the directions up and down; `"two"`: of
        either; `"up"`: of an increase.
    """
    up = (changes >= delta).double().mean(dim=0)
    down = (changes < -delta).double().mean(dim=0)
    return combine_probabilities(up, down, test_mode)


def combine_probabilities(up: Tensor, down: Tensor, test_mode: TestMode) -> Tensor:
    """Probability of a change, from those of an increase and of a decrease."""
    if test_mode == "up":
        return up
    return up + down if test_mode == "two" else torch.maximum(up, down)


def probability_of_order(
    first: Float[Tensor, "samples genes"], second: Float[Tensor, "samples genes"]
) -> Float[Tensor, " genes"]:
    """Posterior probability that the first expression is higher than the second."""
    return (first > second).double().mean(dim=0)


def bayes_factor(probability: Float[Tensor, " genes"]) -> Float[Tensor, " genes"]:
    """Natural logarithm of the odds of a probability, between -18.4 and 18.4."""
    return (probability + MIN_PROBABILITY).log() - (1 - probability + MIN_PROBABILITY).log()


def summarize_changes(changes: Float[Tensor, "samples genes"]) -> ChangeSummary:
    """Mean, median, standard deviation (divided by n, not n - 1), minimum and maximum."""
    by_gene = changes.T.contiguous()
    n = by_gene.shape[-1]
    low = by_gene.kthvalue((n + 1) // 2, dim=-1).values
    high = low if n % 2 else by_gene.kthvalue(n // 2 + 1, dim=-1).values
    std, mean = torch.std_mean(by_gene, dim=-1, correction=0)
    return ChangeSummary(mean, (low + high) / 2, std, *by_gene.aminmax(dim=-1))


def estimate_pseudocount(
    largest: tuple[Float[Tensor, " genes"], Float[Tensor, " genes"]],
    unexpressed: tuple[Bool[Tensor, " genes"], Bool[Tensor, " genes"]],
) -> float:
    """Pseudocount with which genes that are not expressed have small fold changes.

    For each population, the 0.9-quantile over genes that are not expressed of their largest sample;
    the larger of both is divided by the number of genes. At least 1e-10.
    """
    quantiles = [
        float(np.quantile(values[genes].double().cpu().numpy(), 0.9))
        for values, genes in zip(largest, unexpressed, strict=True)
        if genes.any()
    ]
    return max([MIN_PSEUDOCOUNT, *(quantile / len(largest[0]) for quantile in quantiles)])


def estimate_delta(means: NDArray[np.float64]) -> float:
    """Estimate the smallest change that counts, from the mean changes of all genes.

    0.6 times the mean distance from 0 of the outer two components of a mixture of three normal
    distributions; at least 0.1.

    Raises
    ------
    InvalidOptionError
        If there are fewer than three genes.
    """
    from sklearn.mixture import GaussianMixture

    if len(means) < 3:
        raise InvalidOptionError(
            f"Expected at least 3 genes to estimate delta; got {len(means)}. Give a number."
        )
    mixture = GaussianMixture(n_components=3, random_state=0).fit(means[:, None])
    centres = np.sort(mixture.means_.ravel())
    return float(max(0.1, 0.6 * np.abs(centres[[0, -1]]).mean()))


def select_at_fdr(probabilities: NDArray[np.float64], fdr: float) -> NDArray[np.bool_]:
    """Genes to call so that their expected false discovery rate is at most `fdr`.

    The largest set of the most probable genes whose mean probability of no change is at most `fdr`.
    """
    order = np.argsort(-probabilities, kind="stable")
    expected_fdr = np.cumsum(1 - probabilities[order]) / np.arange(1, len(order) + 1)
    called = np.zeros(len(order), dtype=bool)
    called[order[: int((expected_fdr <= fdr).sum())]] = True
    return called

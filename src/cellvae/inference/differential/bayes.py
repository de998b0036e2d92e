"""Probabilities of a change of expression, from draws for two populations."""

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
"""Mean count below which a gene is taken as not expressed in a population."""


class ChangeSummary(NamedTuple):
    """Distribution of the change of each gene, [genes]."""

    mean: Tensor
    median: Tensor
    std: Tensor
    min: Tensor
    max: Tensor


def log_fold_change(
    first: Float[Tensor, "draws genes"], second: Float[Tensor, "draws genes"], pseudocount: float
) -> Float[Tensor, "draws genes"]:
    """Log2 of the ratio of two expressions after a pseudocount was added to both."""
    return (first + pseudocount).log2_().sub_((second + pseudocount).log2_())


def probability_of_change(
    changes: Float[Tensor, "draws genes"], delta: float, test_mode: TestMode
) -> Float[Tensor, " genes"]:
    """Posterior probability that the change of a gene is at least delta, up or down.

    Parameters
    ----------
    changes
        Draws of the change.
    delta
        Least change that counts, in the units of `changes`.
    test_mode
        `"three"`: the probability of the likelier of the directions up and down; `"two"`: of
        either; `"up"`: of up alone.
    """
    up = (changes >= delta).double().mean(dim=0)
    down = (changes < -delta).double().mean(dim=0)
    return combine_probabilities(up, down, test_mode)


def combine_probabilities(up: Tensor, down: Tensor, test_mode: TestMode) -> Tensor:
    """Probability of a change from those of one upwards and of one downwards."""
    if test_mode == "up":
        return up
    return up + down if test_mode == "two" else torch.maximum(up, down)


def probability_of_order(
    first: Float[Tensor, "draws genes"], second: Float[Tensor, "draws genes"]
) -> Float[Tensor, " genes"]:
    """Posterior probability that the first expression is above the second."""
    return (first > second).double().mean(dim=0)


def bayes_factor(probability: Float[Tensor, " genes"]) -> Float[Tensor, " genes"]:
    """Logarithm of the odds of a probability; natural logarithm, between -18.4 and 18.4."""
    return (probability + MIN_PROBABILITY).log() - (1 - probability + MIN_PROBABILITY).log()


def summarize_changes(changes: Float[Tensor, "draws genes"]) -> ChangeSummary:
    """Mean, median, standard deviation (divided by the number of draws), least and largest."""
    by_gene = changes.T.contiguous()
    n = by_gene.shape[-1]
    low = by_gene.kthvalue((n + 1) // 2, dim=-1).values
    high = low if n % 2 else by_gene.kthvalue(n // 2 + 1, dim=-1).values
    deviation, mean = torch.std_mean(by_gene, dim=-1, correction=0)
    return ChangeSummary(mean, (low + high) / 2, deviation, *by_gene.aminmax(dim=-1))


def estimate_pseudocount(
    largest: tuple[Float[Tensor, " genes"], Float[Tensor, " genes"]],
    unexpressed: tuple[Bool[Tensor, " genes"], Bool[Tensor, " genes"]],
) -> float:
    """Pseudocount under which genes that are not expressed hardly change.

    For each population the 0.9-quantile, over genes that are not expressed in it, of the largest
    draw; then the larger of both, divided by the number of genes, and at least 1e-10.
    """
    tops = [
        float(np.quantile(values[chosen].double().cpu().numpy(), 0.9))
        for values, chosen in zip(largest, unexpressed, strict=True)
        if chosen.any()
    ]
    return max([MIN_PSEUDOCOUNT, *(top / len(largest[0]) for top in tops)])


def estimate_delta(means: NDArray[np.float64]) -> float:
    """Least change that counts, from the mean changes of all genes.

    0.6 times the mean distance from 0 of the outer two of three normal components; at least 0.1.

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
    fitted = GaussianMixture(n_components=3, random_state=0).fit(means[:, None])
    centres = np.sort(fitted.means_.ravel())
    return float(max(0.1, 0.6 * np.abs(centres[[0, -1]]).mean()))


def select_at_fdr(probabilities: NDArray[np.float64], fdr: float) -> NDArray[np.bool_]:
    """Genes to call so that the expected share of false ones among them is at most `fdr`.

    The largest set of the likeliest genes whose mean probability of being false is within bounds.
    """
    order = np.argsort(-probabilities, kind="stable")
    expected = np.cumsum(1 - probabilities[order]) / np.arange(1, len(order) + 1)
    called = np.zeros(len(order), dtype=bool)
    called[order[: int((expected <= fdr).sum())]] = True
    return called

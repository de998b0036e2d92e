"""Test of one comparison: from samples of two populations to columns of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cellvae.errors import InvalidOptionError
from cellvae.inference.differential.bayes import (
    UNEXPRESSED,
    ChangeSummary,
    TestMode,
    bayes_factor,
    combine_probabilities,
    estimate_delta,
    estimate_pseudocount,
    log_fold_change,
    probability_of_change,
    probability_of_order,
    summarize_changes,
)
from cellvae.kernels import log_fold_change_summary, use_compiled

MIN_COMPILED = 1e-30
"""Smallest pseudocount for compiled logarithms, which do not handle zero."""

ChangeFunction: TypeAlias = Callable[[NDArray, NDArray, float], NDArray]
"""Change of each gene, [samples, genes], from two expressions of that shape and the pseudocount."""

MAX_ELEMENTS = 2**21
"""Samples of the change that are in memory at a time."""


class TestSpec(NamedTuple):
    """What is tested with the samples of two populations."""

    mode: Literal["change", "vanilla"]
    delta: float | None
    """Smallest change that counts; None to estimate it."""
    test_mode: TestMode
    pseudocounts: float | None
    """Added before a logarithm is taken; None to estimate it from mean counts."""
    change_fn: ChangeFunction | None
    """None for log2 fold changes."""

    @property
    def estimates_pseudocount(self) -> bool:
        """Whether the pseudocount is estimated, which needs mean counts."""
        return self.mode == "change" and self.pseudocounts is None


def run_test(
    test: TestSpec,
    first: Float[Tensor, "samples genes"],
    second: Float[Tensor, "samples genes"],
    raw_means: tuple[Tensor, Tensor] | None,
) -> dict[str, Tensor | float]:
    """Results of the test by name, [genes] each.

    Parameters
    ----------
    test
        What is tested.
    first, second
        Normalized expression of paired samples.
    raw_means
        Mean counts of both populations, to estimate the pseudocount from.
    """
    scales = {"scale1": first.mean(dim=0), "scale2": second.mean(dim=0)}
    if test.mode == "vanilla":
        higher = probability_of_order(first, second)
        return {
            "proba_m1": higher,
            "proba_m2": 1 - higher,
            "bayes_factor": bayes_factor(higher),
            **scales,
        }
    pseudocount = test.pseudocounts
    if pseudocount is None:
        assert raw_means is not None
        pseudocount = estimate_pseudocount(
            (first.amax(dim=0), second.amax(dim=0)),
            (raw_means[0] < UNEXPRESSED, raw_means[1] < UNEXPRESSED),
        )
    delta = test.delta
    if delta is None:
        means = [part.mean(dim=0) for part in iter_changes(test, first, second, pseudocount)]
        delta = estimate_delta(torch.cat(means).double().cpu().numpy())
    probability, summary = change_distribution(test, first, second, pseudocount, delta)
    return {
        "proba_de": probability,
        "proba_not_de": 1 - probability,
        "bayes_factor": bayes_factor(probability),
        **scales,
        "pseudocounts": pseudocount,
        "delta": delta,
        **{f"lfc_{name}": values for name, values in summary._asdict().items()},
    }


def change_distribution(
    test: TestSpec, first: Tensor, second: Tensor, pseudocount: float, delta: float
) -> tuple[Float[Tensor, " genes"], ChangeSummary]:
    """Probability that each gene changes, and the distribution of its change."""
    if (
        test.change_fn is None
        and pseudocount >= MIN_COMPILED
        and use_compiled(first, "log_fold_change_summary")
    ):
        result = log_fold_change_summary(first, second, pseudocount, delta)
        probability = combine_probabilities(result.up, result.down, test.test_mode)
        return probability, ChangeSummary(
            *(x.to(first.dtype) for x in (result.mean, result.median, result.std, *result[-2:]))
        )
    probabilities, summaries = [], []
    for part in iter_changes(test, first, second, pseudocount):
        probabilities.append(probability_of_change(part, delta, test.test_mode))
        summaries.append(summarize_changes(part))
    summary = ChangeSummary(*(torch.cat(parts) for parts in zip(*summaries, strict=True)))
    return torch.cat(probabilities), summary


def iter_changes(
    test: TestSpec, first: Tensor, second: Tensor, pseudocount: float
) -> Iterator[Float[Tensor, "samples genes"]]:
    """Changes in chunks of genes, which limits memory."""
    step = max(1, MAX_ELEMENTS // len(first))
    for one, other in zip(first.split(step, dim=1), second.split(step, dim=1), strict=True):
        if test.change_fn is None:
            yield log_fold_change(one, other, pseudocount)
            continue
        values = np.asarray(test.change_fn(one.cpu().numpy(), other.cpu().numpy(), pseudocount))
        if values.shape != one.shape:
            raise InvalidOptionError(
                f"Expected change_fn to return one change for each sample and gene, "
                f"{[*one.shape]}; got an array of shape {[*values.shape]}."
            )
        yield torch.from_numpy(values)

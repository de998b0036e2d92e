"""What a differential test is made of: cells to compare, and how their posteriors are sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from cellvae.data.batches.indexing import Cells
from cellvae.data.setup.categories import Scalar
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import check_choice
from cellvae.inference.differential.hypothesis import TestSpec
from cellvae.inference.likelihood.importance_options import ImportanceOptions, importance_options


class NamedArguments:
    """Group of arguments that several functions have by the same names."""

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """Group from the arguments of a function, as `locals()` gives them at its beginning."""
        declared: Any = cls
        return cls(**{field.name: arguments[field.name] for field in fields(declared)})


@dataclass(frozen=True, kw_only=True)
class CellGroups(NamedArguments):
    """Cells to compare: groups of a column of `adata.obs`, or two sets of cells.

    Parameters
    ----------
    groupby, group1, group2
        Column, its groups to compare (None for all), and the group to compare them with (None for
        all other cells).
    idx1, idx2
        Cells of both populations in place of groups; None for `idx2` is all other cells.
    filter_outlier_cells
        Whether a tenth of each population, its outliers in the latent space, is left out.

    Raises
    ------
    InvalidOptionError
        If neither or both of a column and cells are given.
    """

    groupby: str | None
    group1: Scalar | Sequence[Scalar] | None
    group2: Scalar | None
    idx1: Cells
    idx2: Cells
    filter_outlier_cells: bool

    def __post_init__(self) -> None:
        if (self.groupby is None) == (self.idx1 is None):
            raise InvalidOptionError(
                "Expected one of groupby (a column of adata.obs) and idx1 (cells); got "
                f"{'neither' if self.groupby is None else 'both'}."
            )
        if self.idx1 is None and self.idx2 is not None:
            raise InvalidOptionError("Expected idx1 with idx2; got idx2 alone.")
        if self.groupby is None and (self.group1 is not None or self.group2 is not None):
            raise InvalidOptionError("Expected groupby with group1 and group2; got idx1.")


@dataclass(frozen=True, kw_only=True)
class PosteriorSampler(NamedArguments):
    """How the posterior of each population is sampled and decoded.

    Parameters
    ----------
    n_samples_overall
        Samples for each population, each of a random cell, chosen with replacement.
    batch_correction
        Whether samples of both populations are decoded for the same batches.
    batchid1, batchid2
        Batches that the samples of each population are decoded for; None for all of the model.
    weights
        `"uniform"` or `"importance"`.
    importance_weighting_kwargs
        Options of importance weights over whole populations; None for weights within each cell.
    batch_size
        Cells that are encoded at a time; None for `settings.batch_size`.
    silent
        Whether progress bars are hidden.

    Raises
    ------
    InvalidOptionError
        If a value is out of range, or would not be used.
    UnknownOptionError
        If there is no such option of importance weights.
    """

    n_samples_overall: int
    batch_correction: bool
    batchid1: Sequence[Scalar] | None
    batchid2: Sequence[Scalar] | None
    weights: str
    importance_weighting_kwargs: Mapping[str, Any] | None
    batch_size: int | None
    silent: bool

    def __post_init__(self) -> None:
        if self.n_samples_overall < 2:
            raise InvalidOptionError(
                f"Expected n_samples_overall to be at least 2; got {self.n_samples_overall}."
            )
        if not self.batch_correction and (self.batchid1 is not None or self.batchid2 is not None):
            raise InvalidOptionError(
                "Expected batch_correction=True with batchid1 and batchid2, the batches that cells "
                "are decoded as if they came from; got batch_correction=False."
            )
        check_choice("weights", self.weights, ("uniform", "importance"))
        importance_options(self.importance_weighting_kwargs, self.weights)

    @property
    def importance(self) -> bool:
        """Whether samples have importance weights, which need counts."""
        return self.weights == "importance"

    @property
    def population_options(self) -> ImportanceOptions | None:
        """Options of importance weights over whole populations; None for other weights."""
        return importance_options(self.importance_weighting_kwargs, self.weights)


def expression_test(arguments: Mapping[str, Any]) -> TestSpec:
    """Test of the log fold changes of expressions, from the arguments of a function.

    Raises
    ------
    InvalidOptionError
        If a threshold is not in its range, or there is no such mode.
    """
    mode, test_mode, change_fn = (arguments[name] for name in ("mode", "test_mode", "change_fn"))
    check_choice("mode", mode, ("change", "vanilla"))
    check_choice("test_mode", test_mode, ("three", "two"))
    if change_fn is not None and not callable(change_fn):
        check_choice("change_fn", change_fn, ("log-fold",))
    delta, pseudocounts = arguments["delta"], arguments["pseudocounts"]
    check_ranges(delta, pseudocounts, arguments["fdr_target"])
    change = change_fn if callable(change_fn) else None
    return TestSpec(mode, delta, test_mode, pseudocounts, change)


def check_ranges(delta: float | None, pseudocounts: float | None, fdr_target: float) -> None:
    """Check that thresholds are in their ranges.

    Raises
    ------
    InvalidOptionError
        If one is not.
    """
    for name, value in (("delta", delta), ("pseudocounts", pseudocounts)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InvalidOptionError(
                f"Expected {name} to be a number of at least 0, or None; got {value!r}."
            )
    if not 0 < fdr_target < 1:
        raise InvalidOptionError(f"Expected fdr_target between 0 and 1; got {fdr_target!r}.")

"""Differential accessibility of regions between groups of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from numpy.typing import NDArray

from cellvae.core.options import check_arguments
from cellvae.data.setup.categories import Scalar
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS, check_choice
from cellvae.inference.differential.arguments import CellGroups, PosteriorSampler, check_ranges
from cellvae.inference.differential.engine import differential
from cellvae.inference.differential.hypothesis import ChangeFunction, TestSpec
from cellvae.inference.differential.quantity import output_quantity
from cellvae.inference.differential.table import accessibility_table
from cellvae.inference.output_features import region_names
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.data.batches.indexing import Cells


class AccessibilityModule(Protocol):
    """A network that decodes accessibility."""

    @property
    def gives_probabilities(self) -> bool:
        """Whether accessibility is a probability; otherwise it is a fraction of the cell."""
        ...


class AccessibilityModel(DecoderModel, Protocol):
    """A trained model of regions."""

    module: Any
    """Network that is an :class:`AccessibilityModule`."""


def difference(first: NDArray[Any], second: NDArray[Any], pseudocount: float) -> NDArray[Any]:
    """Difference of two accessibilities; the pseudocount is not used."""
    values: NDArray[Any] = first - second
    return values


@check_arguments(only=INTEGERS)
def differential_accessibility(
    model: AccessibilityModel,
    adata: AnnData | None = None,
    groupby: str | None = None,
    group1: Scalar | Sequence[Scalar] | None = None,
    group2: Scalar | None = None,
    idx1: Cells = None,
    idx2: Cells = None,
    mode: Literal["change", "vanilla"] = "change",
    delta: float | None = 0.05,
    batch_size: int | None = None,
    all_stats: bool = True,
    batch_correction: bool = False,
    batchid1: Sequence[Scalar] | None = None,
    batchid2: Sequence[Scalar] | None = None,
    fdr_target: float = 0.05,
    silent: bool = False,
    two_sided: bool = True,
    weights: Literal["uniform", "importance"] = "uniform",
    filter_outlier_cells: bool = False,
    importance_weighting_kwargs: Mapping[str, Any] | None = None,
    *,
    n_samples_overall: int = 5_000,
    test_mode: Literal["two", "three"] | None = None,
    pseudocounts: float | None = None,
    change_fn: Literal["difference", "log-fold"] | ChangeFunction | None = None,
) -> pd.DataFrame:
    """Test which regions are differentially accessible between groups of cells.

    Posterior samples of both populations are compared in pairs, as in
    :func:`differential_expression`.

    Parameters
    ----------
    model
        Trained model of regions.
    adata
        Cells; None for those of the model.
    groupby
        Column of `adata.obs` with the group of each cell.
    group1
        Group, or several, each of which is compared; None for all.
    group2
        Group to compare with; None for all other cells.
    idx1, idx2
        Cells in place of groups: a query of `adata.obs`, a mask, indices or names. Without `idx2`,
        all other cells.
    mode
        `"change"`: whether accessibility differs by at least `delta`; `"vanilla"`: whether it is
        higher in the first population.
    delta
        Smallest change that counts, in the units of `change_fn`; None to estimate it.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    all_stats
        Whether the table has fractions of cells with counts, which take a pass over all compared
        cells.
    batch_correction
        Whether samples of both populations are decoded as if they came from the same batches.
    batchid1, batchid2
        Batches for the samples of each population; None for all batches of the model.
    fdr_target
        Expected fraction of false discoveries among the called regions.
    silent
        Whether the progress bar is hidden.
    two_sided
        Whether both directions count; otherwise only regions that are more accessible in the first
        population.
    test_mode
        How both directions count: `"two"`, both together; `"three"`, as separate hypotheses, of
        which the more probable one counts, as in scvi-tools' PEAKVI. None is `"two"`.
    weights, importance_weighting_kwargs
        As in :func:`differential_expression`.
    filter_outlier_cells
        Whether a tenth of each population, its outliers in the latent space, is left out.
    n_samples_overall
        Number of samples for each population, each of a random cell, chosen with replacement.
    pseudocounts
        Added before a logarithm is taken; None to estimate it from regions with a mean count below
        0.01.
    change_fn
        `"difference"` of probabilities; `"log-fold"` for log2 fold changes, which scvi-tools always
        uses; or a function of two arrays [samples, regions] and the pseudocount. None is
        `"difference"` if the model decodes probabilities, else `"log-fold"`.

    Returns
    -------
    DataFrame with a row for each region and comparison; regions are sorted by probability.
    Columns, with their meanings in
    `cellvae.inference.differential.table.ACCESSIBILITY_COLUMNS`: `prob_da`, `is_da_fdr`,
    `bayes_factor`, `effect_size`, `emp_effect`, `est_prob1`, `est_prob2`, `emp_prob1`,
    `emp_prob2`; with `groupby` `comparison`, `group1`, `group2`.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If regions or categories of `adata` are not those of the model, or counts are needed and
        were dropped: `all_stats=False` needs none.
    UnknownKeyError
        If there is no such column, group or batch.
    InvalidOptionError
        If an argument has an invalid value, or a population has no cells.
    """
    arguments = locals()
    check_choice("mode", mode, ("change", "vanilla"))
    names = region_names(model)
    module: AccessibilityModule = model.module
    if change_fn is None:
        change_fn = "difference" if module.gives_probabilities else "log-fold"
    elif not callable(change_fn):
        check_choice("change_fn", change_fn, ("difference", "log-fold"))
    if test_mode is not None:
        check_choice("test_mode", test_mode, ("two", "three"))
        if not two_sided:
            raise InvalidOptionError(
                f"Expected two_sided=True with test_mode='{test_mode}', which says how both "
                "directions count; got two_sided=False."
            )
    check_ranges(delta, pseudocounts, fdr_target)
    return differential(
        model,
        adata,
        CellGroups.of(arguments),
        PosteriorSampler.of(arguments),
        TestSpec(
            mode,
            delta,
            (test_mode or "two") if two_sided else "up",
            0.0 if change_fn == "difference" else pseudocounts,
            change_fn if callable(change_fn) else difference if change_fn == "difference" else None,
        ),
        partial(accessibility_table, regions=names, fdr=fdr_target),
        raw_counts=all_stats,
        quantity=output_quantity(model, "accessibility", len(names))
        if "regions" in model.registration.axes
        else None,
    )

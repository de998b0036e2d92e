"""Differential accessibility of groups of cells: the question and the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cellvae.core.options import check_arguments
from cellvae.data.setup.categories import Scalar
from cellvae.data.storage.column import lacks_counts
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import eval_mode, plan_pass
from cellvae.inference.differential.arguments import (
    check_batches,
    check_choice,
    check_group_arguments,
    check_ranges,
)
from cellvae.inference.differential.bayes import select_at_fdr
from cellvae.inference.differential.expression import (
    iter_comparisons,
    means_of,
    sample_batch_codes,
)
from cellvae.inference.differential.groups import populations_of_cells, populations_of_column
from cellvae.inference.differential.hypothesis import ChangeFunction, TestSpec, run_test
from cellvae.inference.differential.outliers import drop_outliers
from cellvae.inference.differential.posterior_pool import sample_pool
from cellvae.inference.differential.raw_means import raw_count_means
from cellvae.inference.differential.resampling import resample_pool
from cellvae.inference.differential.table import with_groups
from cellvae.inference.likelihood.importance_options import importance_options
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.data.batches.indexing import Cells

ACCESSIBILITY_COLUMNS: Mapping[str, str] = {
    "prob_da": "Probability that the region differs by at least `delta`; in mode vanilla that it "
    "is more accessible in the first population",
    "is_da_fdr": "Whether the region is called at the false discovery rate (mode change)",
    "bayes_factor": "Natural logarithm of the odds of `prob_da`",
    "effect_size": "Estimated accessibility in the second population less that in the first",
    "emp_effect": "Share of cells with counts in the second population less that in the first",
    "est_prob1": "Estimated accessibility in the first population",
    "est_prob2": "Estimated accessibility in the second population",
    "emp_prob1": "Share of cells with counts in the first population",
    "emp_prob2": "Share of cells with counts in the second population",
    "comparison": "`group1 vs group2` (with `groupby`)",
    "group1": "First population, as in the column of cells (with `groupby`)",
    "group2": "Second population, `Rest` for all other cells (with `groupby`)",
}
"""Meaning of each column, in their order."""


class AccessibilityModule(Protocol):
    """A network of accessibility."""

    @property
    def gives_probabilities(self) -> bool:
        """Whether accessibility is a probability; otherwise a share of the cell."""
        ...


class AccessibilityModel(DecoderModel, Protocol):
    """A trained model of regions."""

    module: Any
    """Network that is `Accesses`."""


def difference(first: NDArray[Any], second: NDArray[Any], pseudocount: float) -> NDArray[Any]:
    """Difference of two accessibilities."""
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
    """Regions that differ in accessibility between groups of cells.

    Draws of both populations are compared pair by pair, as :func:`differential_expression` does.

    Parameters
    ----------
    model
        Trained model of regions.
    adata
        Cells; None for those that the model was made with.
    groupby
        Column of `adata.obs` with the group of each cell.
    group1
        Group, or several, each compared by itself; None for all.
    group2
        Group to compare with; None for all other cells.
    idx1, idx2
        Cells in place of groups: a query of `adata.obs`, a mask, numbers or names. Without `idx2`,
        all other cells.
    mode
        `"change"`: whether accessibility differs by at least `delta`; `"vanilla"`: whether it is
        higher in the first population.
    delta
        Least change that counts, in the units of `change_fn`; None to estimate it.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    all_stats
        Whether the table has shares of cells with counts, which takes a pass over all cells
        compared.
    batch_correction
        Whether draws of both populations are decoded as if they came from the same batches.
    batchid1, batchid2
        Batches for the draws of each population; None for all batches of the model.
    fdr_target
        Expected share of false regions among those called.
    silent
        Whether no progress is shown.
    two_sided
        Whether both directions count; otherwise only regions that are more accessible in the first
        population.
    test_mode
        How both directions count: `"two"`, both together; `"three"`, apart, and the likelier of
        them counts, as scvi-tools' PEAKVI has it. None is `"two"`.
    weights, importance_weighting_kwargs
        As :func:`differential_expression` takes them.
    filter_outlier_cells
        Whether the tenth of each population that lies apart in the latent space is left out.
    n_samples_overall
        Draws for each population, each of a cell chosen at random with replacement.
    pseudocounts
        Added before a logarithm is taken; None to estimate it from regions with a mean count below
        0.01.
    change_fn
        `"difference"` of probabilities; `"log-fold"` for log2 fold changes, which scvi-tools always
        takes; or a function of two arrays [draws, regions] and the pseudocount. None is
        `"difference"` where the model gives probabilities, else `"log-fold"`.

    Returns
    -------
    DataFrame with a row for each region and comparison, in each the likeliest regions first.
    Columns, with their meanings in `ACCESSIBILITY_COLUMNS`: `prob_da`, `is_da_fdr`,
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
        If an argument has a value that it cannot take, or a population has no cells.
    """
    import pandas as pd

    check_choice("mode", mode, ("change", "vanilla"))
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
    check_group_arguments(groupby, group1, group2, idx1, idx2)
    check_ranges(delta, pseudocounts, fdr_target, n_samples_overall)
    check_batches(batch_correction, batchid1, batchid2)
    check_choice("weights", weights, ("uniform", "importance"))
    importance = weights == "importance"
    by_population = importance_options(importance_weighting_kwargs, weights)
    question = TestSpec(
        mode,
        delta,
        (test_mode or "two") if two_sided else "up",
        0.0 if change_fn == "difference" else pseudocounts,
        change_fn if callable(change_fn) else difference if change_fn == "difference" else None,
    )
    estimates = mode == "change" and question.pseudocounts is None
    counts = all_stats or (estimates and not lacks_counts(model.rows_for(adata)))
    asked = plan_pass(model, adata, None, batch_size, silent=silent, counts=counts or importance)
    codes = sample_batch_codes(model, batch_correction, batchid1, batchid2, n_samples_overall)
    whole: Any = model.adata if adata is None else adata
    found = (
        populations_of_cells(whole, idx1, idx2)
        if groupby is None
        else populations_of_column(whole, groupby, group1, group2)
    )
    if filter_outlier_cells:
        found = found._replace(cells=drop_outliers(model, adata, found.cells, batch_size))
    regions = pd.Index(model.registration.genes)
    tables = []
    with eval_mode(model):
        counted = raw_count_means(asked, found.cells) if counts else None
        per_cell = importance and by_population is None
        pool = sample_pool(model.module, asked, found.cells, n_samples_overall, importance=per_cell)
        if by_population is not None:
            pool = resample_pool(model, adata, found.cells, pool, by_population, batch_size)
        for place, first, second in iter_comparisons(model, pool, found, codes, silent):
            comparison = found.comparisons[place]
            both = (comparison.first, comparison.second)
            means = means_of(model, pool, comparison, counted, estimates)
            values = run_test(question, first, second, means)
            columns = {name: to_array(value) for name, value in values.items()}
            rates = None
            if counted is not None and all_stats:
                rates = [counted.non_zero[population].cpu().numpy() for population in both]
            table = accessibility_table(columns, regions, rates, mode, fdr_target)
            if comparison.names is not None:
                table = with_groups(table, comparison.names)
            tables.append(table)
    return pd.concat(tables)


def to_array(value: Any) -> NDArray[Any]:
    """Column of a test as an array."""
    return np.asarray(value) if isinstance(value, float) else value.cpu().numpy()


def accessibility_table(
    columns: Mapping[str, NDArray[Any]],
    regions: pd.Index,
    rates: list[NDArray[Any]] | None,
    mode: str,
    fdr: float,
) -> pd.DataFrame:
    """Table of one comparison, the likeliest regions first."""
    import pandas as pd

    probability = columns["proba_de" if mode == "change" else "proba_m1"]
    values: dict[str, Any] = {"prob_da": probability}
    if mode == "change":
        values["is_da_fdr"] = select_at_fdr(probability, fdr)
    values["bayes_factor"] = columns["bayes_factor"]
    values["effect_size"] = columns["scale2"] - columns["scale1"]
    if rates is not None:
        values["emp_effect"] = rates[1] - rates[0]
    values["est_prob1"], values["est_prob2"] = columns["scale1"], columns["scale2"]
    if rates is not None:
        values["emp_prob1"], values["emp_prob2"] = rates
    table = pd.DataFrame(values, index=regions)
    size = table["effect_size"].abs().rename("size")
    order = pd.concat([table["prob_da"], size], axis=1)
    order = order.sort_values(["prob_da", "size"], ascending=False, kind="stable")
    return table.loc[order.index]

"""Posterior predictive checks: counts drawn from models beside those that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellvae.data.setup.obs_columns import to_categorical
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.criticism.differential_expression_check import (
    Thresholds,
    check_groups,
    check_method,
    compare_groups,
    leiden_clusters,
    rank_genes,
)
from cellvae.inference.criticism.ppc_statistics import (
    RAW_COUNTS_FIELD,
    PPCStatistics,
    check_models,
    draw_counts,
    interval_error,
    ppc_statistics,
    raw_counts_column,
)
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Levels of the intervals that calibration is shown for."""

LOWER_IS_BETTER = (0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175)
QUANTILES = (*LOWER_IS_BETTER, *(round(1 - quantile, 3) for quantile in reversed(LOWER_IS_BETTER)))
"""Bounds of the intervals that calibration is judged by."""

INSTEAD = {
    "samples_dataset": "draws are summed up at once; model.posterior_predictive_sample() has them",
    "raw_counts": "measured counts are read where the model has them, or in count_layer_key",
}
"""Attributes of scvi-tools that are not here, and what to use in their place."""


@final
class PosteriorPredictiveCheck:
    """Statistics of measured counts beside those of counts drawn from models.

    Counts are drawn batch by batch and summed up at once: memory holds one batch. The first
    question makes one pass over the cells for each model, whose results serve all questions but
    those of calibration errors and differential expression, which make their own.

    Parameters
    ----------
    adata
        Cells, which all models can be asked about.
    models_dict
        Trained models of the same genes, by name.
    count_layer_key
        Layer with the measured counts; None for where each model reads them.
    n_samples
        Draws for each cell.
    indices
        Cells to look at, by number, mask or name; None for all.
    modality
        Only None: no model here reads MuData.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether no progress is shown.

    Attributes
    ----------
    metrics
        Answers given so far, by the names of scvi-tools: `"cv_gene"`, `"cv_cell"`,
        `"zero_fraction"`, `"calibration"`, `"diff_exp"`; and `"calibration_curve"`.

    Raises
    ------
    NotTrainedError
        If a model has not been trained.
    DataMismatchError
        If genes or categories are not those of the models, or those of the models differ.
    InvalidOptionError
        If there is no model, a model has the name "Raw", or a number is below 1.

    Examples
    --------
    >>> check = PosteriorPredictiveCheck(adata, {"scVI": model})  # doctest: +SKIP
    >>> check.zero_fraction()  # doctest: +SKIP
    """

    def __init__(
        self,
        adata: AnnData,
        models_dict: Mapping[str, DecoderModel],
        count_layer_key: str | None = None,
        n_samples: int = 10,
        indices: CellChoice = None,
        modality: str | None = None,
        *,
        batch_size: int | None = None,
        silent: bool = False,
    ) -> None:
        check_models(models_dict, n_samples)
        if modality is not None:
            raise InvalidOptionError(
                f"Expected modality=None, since no model here reads MuData; got {modality!r}. "
                "Give adata=mdata[modality]."
            )
        self.count_layer_key = count_layer_key
        self.models = dict(models_dict)
        self.adata = adata
        self.n_samples = n_samples
        self.genes = next(iter(self.models.values())).registration.genes
        self.passes = {
            name: plan_pass(model, adata, indices, batch_size, silent=silent, counts=True)
            for name, model in self.models.items()
        }
        self.cells: Tensor = next(iter(self.passes.values())).cells
        first = next(iter(self.models.values()))
        self.raw_counts = raw_counts_column(adata, count_layer_key, first.registration)
        self.metrics: dict[str, Any] = {}
        self.statistics: dict[str, PPCStatistics] = {}

    def coefficient_of_variation(self, dim: Literal["cells", "features"] = "cells") -> pd.DataFrame:
        """Standard deviation divided by the mean: measured, and drawn (a mean over draws).

        Parameters
        ----------
        dim
            What is summed over: `"cells"` gives one value a gene, `"features"` one a cell.

        Returns
        -------
        DataFrame [genes or cells, "Raw" and models]; 0 where all measured counts are 0, NaN where
        all drawn ones are.
        """
        if dim not in ("cells", "features"):
            hint = did_you_mean(str(dim), ("cells", "features"))
            raise InvalidOptionError(
                f"Expected dim to be 'cells' or 'features'; got {dim!r}.{hint}"
            )
        self.run_passes()
        if dim == "cells":
            values = {name: seen.variation_of_genes for name, seen in self.statistics.items()}
            values[RAW_COUNTS_FIELD] = np.nan_to_num(values[RAW_COUNTS_FIELD])
            return self.store_table("cv_gene", values, list(self.genes))
        values = {name: seen.variation_of_cells for name, seen in self.statistics.items()}
        values[RAW_COUNTS_FIELD] = np.nan_to_num(values[RAW_COUNTS_FIELD])
        return self.store_table("cv_cell", values, self.adata.obs_names[self.cells.numpy()])

    def zero_fraction(self) -> pd.DataFrame:
        """Share of the cells without a count of a gene: measured, and drawn.

        Returns
        -------
        DataFrame [genes, "Raw" and models].
        """
        self.run_passes()
        values = {name: seen.zero_fraction for name, seen in self.statistics.items()}
        return self.store_table("zero_fraction", values, list(self.genes))

    def calibration(self, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
        """Share of the measured counts within the central interval of each level.

        A model that is right has `coverage == level`, for counts too: ties are broken at random.
        Above it, the model takes counts to be noisier than they are; below it, it is too sure.

        Returns
        -------
        DataFrame [levels, models].
        """
        asked = [float(level) for level in levels]
        if not asked or min(asked) <= 0 or max(asked) >= 1:
            raise InvalidOptionError(
                f"Expected levels of intervals above 0 and below 1; got {asked}."
            )
        self.run_passes()
        values = {
            n: s.ranks.coverage(asked) for n, s in self.statistics.items() if n != RAW_COUNTS_FIELD
        }
        return self.store_table("calibration_curve", values, asked, index_name="level")

    def calibration_error(
        self,
        confidence_intervals: Sequence[float] | None = None,
        *,
        randomized: bool = False,
    ) -> pd.Series:
        """Squared difference of coverage and level; 0 is best.

        By default as in scvi-tools: the sum over intervals between quantiles of the draws of each
        count, where a count on a bound is within. Small counts are nearly always within, whatever
        the model; `randomized=True` breaks ties at random as :meth:`calibration` does, and takes
        the mean over intervals.

        Parameters
        ----------
        confidence_intervals
            Quantiles that bound the intervals, rising: the first and the last bound the first one,
            and so on inwards. None for seven intervals of levels 0.65 to 0.95.
        randomized
            Whether ties of measured counts and draws are broken at random.

        Returns
        -------
        One number a model; without `randomized` they are also kept in `metrics["calibration"]`.
        """
        import pandas as pd

        given = QUANTILES if confidence_intervals is None else confidence_intervals
        bounds = checked_quantiles(given)
        if not randomized:
            errors = {
                name: interval_error(
                    model, self.passes[name], self.raw_counts, self.n_samples, bounds.tolist()
                )
                for name, model in self.models.items()
            }
            self.metrics["calibration"] = pd.DataFrame(errors, index=["features"])
            return pd.Series(errors, name="calibration_error")
        self.run_passes()
        errors = {}
        n = len(bounds) // 2
        for name in self.models:
            below = self.statistics[name].ranks.below(bounds)
            coverage, level = (x[::-1][:n] - x[:n] for x in (below, bounds))
            errors[name] = float(np.mean((coverage - level) ** 2))
        return pd.Series(errors, name="calibration_error")

    def differential_expression(
        self,
        de_groupby: str | None = None,
        de_method: str = "t-test",
        n_samples: int = 1,
        cell_scale_factor: float = 1e4,
        p_val_thresh: float = 0.001,
        n_top_genes_fallback: int = 100,
    ) -> pd.DataFrame:
        """Whether the genes that differ between groups differ in drawn counts too.

        Each group is compared with all other cells by `scanpy.tl.rank_genes_groups`, of log(1 + x)
        of counts scaled to the same sum, in measured counts and in each draw.

        Parameters
        ----------
        de_groupby
            Column of `adata.obs` with the group of each cell; None for Leiden clusters of the
            measured counts, which need the package igraph.
        de_method
            `"t-test"`, `"t-test_overestim_var"` or `"wilcoxon"`.
        n_samples
            Draws for each cell, over which scores are averaged; at most those of the check.
        cell_scale_factor
            Sum that the counts of each cell are scaled to.
        p_val_thresh
            Adjusted p value (Benjamini and Hochberg) below which a gene counts as found.
        n_top_genes_fallback
            Genes that are compared as the first of a group, and that count as found where none or
            more than half are below the threshold; at most a tenth of all genes.

        Returns
        -------
        DataFrame with a row for each model and group: `gene_f1`, the share of the first genes that
        both have; `lfc_mae`, `lfc_pearson`, `lfc_spearman` of log2 fold changes; `roc_auc` and
        `pr_auc` of the drawn scores for the genes found in measured counts; `group`, `model`,
        `n_cells`; `recall` and `precision` of the genes below the threshold. It is kept in
        `metrics["diff_exp"]["summary"]`, and the fold changes of each gene in
        `metrics["diff_exp"]["lfc_per_model_per_group"][model][group]`.
        """
        check_method(de_method)
        if not 1 <= n_samples <= self.n_samples:
            raise InvalidOptionError(
                f"Expected n_samples from 1 to those of the check, {self.n_samples}; got "
                f"{n_samples}."
            )
        groups = None if de_groupby is None else self.groups_of(de_groupby)
        measured: list[pd.DataFrame] | None = None
        draws: dict[str, list[list[pd.DataFrame]]] = {}
        for name, model in self.models.items():
            counts, drawn = draw_counts(model, self.passes[name], self.raw_counts, n_samples)
            if groups is None:
                groups = leiden_clusters(counts, cell_scale_factor)
                check_groups(groups, "the Leiden clusters")
            if measured is None:
                measured = rank_genes(counts, groups, de_method, cell_scale_factor)
            draws[name] = [rank_genes(x, groups, de_method, cell_scale_factor) for x in drawn]
        assert groups is not None and measured is not None
        n_top = max(1, min(n_top_genes_fallback, len(self.genes) // 10))
        found = compare_groups(
            measured,
            draws,
            groups,
            np.asarray(self.genes, dtype=object),
            Thresholds(p_val_thresh, n_top),
        )
        self.metrics["diff_exp"] = found
        summary: pd.DataFrame = found["summary"]
        return summary

    def groups_of(self, key: str) -> pd.Series:
        """Group of each of the cells as categories, those that no cell has left out."""
        groups = to_categorical(self.adata, key).iloc[self.cells.numpy()]
        groups = groups.cat.remove_unused_categories().reset_index(drop=True)
        check_groups(groups, f"adata.obs['{key}']")
        return groups

    def __repr__(self) -> str:
        shape = (len(self.cells), len(self.genes))
        return (
            "--- Posterior Predictive Checks ---\n"
            f"n_samples = {self.n_samples}\n"
            f"raw_counts shape = {shape}\n"
            f"models: {[*self.models]}\n"
            f"metrics: {', '.join(self.metrics) or 'none so far'}"
        )

    def __getattr__(self, name: str) -> Any:
        if name in INSTEAD:
            raise AttributeError(f"PosteriorPredictiveCheck has no {name}: {INSTEAD[name]}")
        raise AttributeError(f"'PosteriorPredictiveCheck' object has no attribute '{name}'")

    def run_passes(self) -> None:
        """Make the passes over the cells, unless they were made."""
        if self.statistics:
            return
        found: dict[str, PPCStatistics] = {}
        for name, model in self.models.items():
            raw, drawn = ppc_statistics(model, self.passes[name], self.raw_counts, self.n_samples)
            found.setdefault(RAW_COUNTS_FIELD, raw)
            found[name] = drawn
        self.statistics = found

    def store_table(
        self,
        name: str,
        values: Mapping[str, NDArray[np.float64]],
        index: Sequence[object] | pd.Index,
        index_name: str | None = None,
    ) -> pd.DataFrame:
        """Table of an answer, which is kept in `metrics`."""
        import pandas as pd

        table = pd.DataFrame(dict(values), index=index).rename_axis(index=index_name)
        self.metrics[name] = table
        return table


def checked_quantiles(quantiles: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles that bound intervals.

    Raises
    ------
    InvalidOptionError
        If they are not an even number of rising ones from 0 to 1.
    """
    bounds = np.asarray(quantiles, dtype=float)
    n = len(bounds) // 2 if bounds.ndim == 1 else 0
    rising = n and len(bounds) == 2 * n and (np.diff(bounds) > 0).all()
    if not rising or bounds[0] < 0 or bounds[-1] > 1:
        raise InvalidOptionError(
            "Expected an even number of rising quantiles from 0 to 1 in confidence_intervals, "
            f"such as [0.05, 0.25, 0.75, 0.95]; got {quantiles!r:.80}."
        )
    return bounds

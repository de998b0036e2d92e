"""Posterior predictive checks: counts drawn from models compared with measured counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellvae.inference.arguments import check_choice
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.criticism.calibration import (
    LEVELS,
    check_levels,
    check_quantiles,
    interval_errors,
    randomized_error,
)
from cellvae.inference.criticism.checked_output import (
    CheckedOutput,
    features_of_output,
    keep_measured,
    values_of_layer,
)
from cellvae.inference.criticism.differential_expression_check import (
    Thresholds,
    compare_differential_expression,
)
from cellvae.inference.criticism.gene_ranking import cell_groups, check_method, check_n_draws
from cellvae.inference.criticism.ppc_statistics import (
    PPCStatistics,
    check_models,
    draw_counts,
    statistics_by_name,
)
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

REPLACEMENTS = {
    "samples_dataset": "draws are not stored; use model.posterior_predictive_sample()",
    "raw_counts": "measured counts are those that the model reads, or those of count_layer_key",
}
"""Attributes of scvi-tools that do not exist here, and what to use instead."""


@final
class PosteriorPredictiveCheck:
    """Statistics of measured counts beside those of counts drawn from models.

    A model of several modalities is checked for one of them, over the cells, and for proteins the
    panels, in which it was measured. Counts are drawn and summarized batch by batch, so that memory
    holds one batch. The first method called makes one pass over the cells for each model, which
    serves all methods but :meth:`calibration_error` and :meth:`differential_expression`.

    Parameters
    ----------
    adata
        Cells with the genes of all models.
    models_dict
        Trained models of the same genes (or regions, or proteins), by name.
    count_layer_key
        Layer with the measured counts, or entry of `obsm` for proteins there; None for the counts
        that each model reads.
    n_samples
        Draws for each cell.
    indices
        Cells to check, by index, mask or name; None for all.
    modality
        Modality of a MuData whose counts are checked; None for the first, or `output`.
    output
        Output that is checked: `"rna"`, `"accessibility"` or `"protein"`; None for the first.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Attributes
    ----------
    metrics
        Results computed so far, by the names of scvi-tools: `"cv_gene"`, `"cv_cell"`,
        `"zero_fraction"`, `"calibration"`, `"diff_exp"`; and `"calibration_curve"`.

    Raises
    ------
    NotTrainedError
        If a model has not been trained.
    DataMismatchError
        If genes or categories are not those of the models, or those of the models differ.
    InvalidOptionError
        If there is no model, a model has the name "Raw" or no such output, no cell has it, or a
        number is below 1.
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
        output: str | None = None,
        batch_size: int | None = None,
        silent: bool = False,
    ) -> None:
        found = check_models(models_dict, n_samples, output, modality)
        self.count_layer_key = count_layer_key
        self.models = dict(models_dict)
        self.adata = adata
        self.n_samples = n_samples
        first = next(iter(self.models.values()))
        self.genes = features_of_output(first, found)
        passes = {
            name: plan_pass(model, adata, indices, batch_size, silent=silent, counts=True)
            for name, model in self.models.items()
        }
        self.cells: Tensor = keep_measured(first, next(iter(passes.values())), found).cells
        self.passes = {name: part._replace(cells=self.cells) for name, part in passes.items()}
        raw = values_of_layer(first, adata, found, count_layer_key)
        self.output = CheckedOutput(found, raw)
        self.metrics: dict[str, Any] = {}
        self.statistics: dict[str, PPCStatistics] = {}

    def coefficient_of_variation(self, dim: Literal["cells", "features"] = "cells") -> pd.DataFrame:
        """Coefficient of variation (std / mean) of measured and of drawn counts.

        Parameters
        ----------
        dim
            Axis of the mean: `"cells"` gives one value a gene, `"features"` one a cell.

        Returns
        -------
        DataFrame [genes or cells, "Raw" and models], for models a mean over draws; 0 where all
        measured counts are 0, NaN where all drawn ones are.
        """
        check_choice("dim", dim, ("cells", "features"))
        self._run_passes()
        of_genes = dim == "cells"
        values = {
            name: found.variation_of_genes if of_genes else found.variation_of_cells
            for name, found in self.statistics.items()
        }
        if of_genes:
            return self._store_table("cv_gene", values, list(self.genes))
        return self._store_table("cv_cell", values, self.adata.obs_names[self.cells.numpy()])

    def zero_fraction(self) -> pd.DataFrame:
        """Fraction of the cells without a count of each gene, in measured and in drawn counts.

        Returns
        -------
        DataFrame [genes, "Raw" and models].
        """
        self._run_passes()
        values = {name: found.zero_fraction for name, found in self.statistics.items()}
        return self._store_table("zero_fraction", values, list(self.genes))

    def calibration(self, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
        """Coverage of central intervals: fraction of the measured counts within each.

        A calibrated model has `coverage == level`, also for counts, since ties are broken at
        random. Above it the model overestimates the noise; below it, it is overconfident.

        Returns
        -------
        DataFrame [levels, models].
        """
        import pandas as pd

        index = pd.Index(check_levels(levels), name="level")
        self._run_passes()
        values = {name: self.statistics[name].ranks.coverage(index) for name in self.models}
        return self._store_table("calibration_curve", values, index)

    def calibration_error(
        self,
        confidence_intervals: Sequence[float] | None = None,
        *,
        randomized: bool = False,
    ) -> pd.Series:
        """Squared difference of coverage and level of intervals; 0 is best.

        By default as in scvi-tools: the sum over intervals between quantiles of the draws of each
        count, which contain counts equal to a bound. Small counts are nearly always inside under
        any model; `randomized=True` breaks ties at random as :meth:`calibration` does, and takes
        the mean over intervals.

        Parameters
        ----------
        confidence_intervals
            Quantiles that bound the intervals, in ascending order: the first and the last bound
            the outermost one, and so on inwards. None for seven intervals of levels 0.65 to 0.95.
        randomized
            Whether ties of measured counts and draws are broken at random.

        Returns
        -------
        One number for each model; without `randomized` also stored in `metrics["calibration"]`.
        """
        import pandas as pd

        bounds = check_quantiles(confidence_intervals)
        if not randomized:
            errors = interval_errors(
                self.models, self.passes, self.output, self.n_samples, bounds.tolist()
            )
            self.metrics["calibration"] = pd.DataFrame(errors, index=["features"])
            return pd.Series(errors, name="calibration_error")
        self._run_passes()
        errors = {
            name: randomized_error(self.statistics[name].ranks, bounds) for name in self.models
        }
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
        """Compare differential expression in drawn counts with that in measured counts.

        `scanpy.tl.rank_genes_groups` compares each group with all other cells, in log(1 + x) of
        counts scaled to the same sum: once in the measured counts, and once in each draw.

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
            Number of top genes of each group that are compared, and that count as found where none
            or more than half are below the threshold; at most a tenth of all genes.

        Returns
        -------
        DataFrame with a row for each model and group: `gene_f1`, the fraction of the top genes that
        both share; `lfc_mae`, `lfc_pearson`, `lfc_spearman` of log2 fold changes; `roc_auc` and
        `pr_auc` of the drawn scores for the genes found in measured counts; `group`, `model`,
        `n_cells`; `recall` and `precision` of the genes below the threshold. Stored in
        `metrics["diff_exp"]["summary"]`, and the fold changes of each gene in
        `metrics["diff_exp"]["lfc_per_model_per_group"][model][group]`.
        """
        check_method(de_method)
        check_n_draws(n_samples, self.n_samples)
        n_top = max(1, min(n_top_genes_fallback, len(self.genes) // 10))
        counts = (
            (name, *draw_counts(model, self.passes[name], self.output, n_samples))
            for name, model in self.models.items()
        )
        result = compare_differential_expression(
            counts,
            None if de_groupby is None else cell_groups(self.adata, de_groupby, self.cells),
            np.asarray(self.genes, dtype=object),
            de_method,
            cell_scale_factor,
            Thresholds(p_val_thresh, n_top),
        )
        self.metrics["diff_exp"] = result
        return result["summary"]

    def __repr__(self) -> str:
        return (
            "--- Posterior Predictive Checks ---\n"
            f"n_samples = {self.n_samples}\n"
            f"output = {self.output.name}\n"
            f"raw_counts shape = {(len(self.cells), len(self.genes))}\n"
            f"models: {[*self.models]}\n"
            f"metrics: {', '.join(self.metrics) or 'none so far'}"
        )

    def __getattr__(self, name: str) -> Any:
        advice = f": {REPLACEMENTS[name]}" if name in REPLACEMENTS else ""
        raise AttributeError(f"PosteriorPredictiveCheck has no attribute '{name}'{advice}")

    def _run_passes(self) -> None:
        """Compute the statistics of all models, unless they have been computed."""
        if not self.statistics:
            self.statistics = statistics_by_name(
                self.models, self.passes, self.output, self.n_samples
            )

    def _store_table(
        self, name: str, values: Mapping[str, NDArray[np.float64]], index: pd.Index | list[str]
    ) -> pd.DataFrame:
        """Make a table of results and store it in `metrics`."""
        import pandas as pd

        table = self.metrics[name] = pd.DataFrame(dict(values), index=index)
        return table

"""Posterior predictive checks: counts drawn from models beside those that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.data.observations import as_categories
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.evaluation.predictive import GroupMoments, recovery
from cellvae.inference.pass_over import pass_over
from cellvae.inference.predictive import (
    RAW,
    Seen,
    check_models,
    moments_of_groups,
    raw_counts,
    seen_in,
)
from cellvae.inference.protocols import HasDecoder

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Levels of the intervals that calibration is shown for."""

LOWER = (0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175)
QUANTILES = (*LOWER, *(round(1 - quantile, 3) for quantile in reversed(LOWER)))
"""Bounds of the intervals that calibration is judged by."""


@final
class PosteriorPredictiveCheck:
    """Statistics of measured counts beside those of counts drawn from models.

    Counts are drawn batch by batch and summed up at once: memory holds one batch. The first
    question makes one pass over the cells for each model, whose results serve all questions but
    that of differential expression.

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
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether no progress is shown.

    Attributes
    ----------
    metrics
        Answers given so far, by name.

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
        models_dict: Mapping[str, HasDecoder],
        count_layer_key: str | None = None,
        n_samples: int = 10,
        indices: CellChoice = None,
        *,
        batch_size: int | None = None,
        silent: bool = False,
    ) -> None:
        check_models(models_dict, n_samples)
        self.models = dict(models_dict)
        self.adata = adata
        self.n_samples = n_samples
        self.genes = next(iter(self.models.values())).registration.genes
        self.passes = {
            name: pass_over(model, adata, indices, batch_size, silent=silent, counts=True)
            for name, model in self.models.items()
        }
        self.cells: Tensor = next(iter(self.passes.values())).cells
        first = next(iter(self.models.values()))
        self.raw = raw_counts(adata, count_layer_key, first.registration)
        self.metrics: dict[str, pd.DataFrame] = {}
        self.seen: dict[str, Seen] = {}

    def coefficient_of_variation(self, dim: Literal["cells", "features"] = "cells") -> pd.DataFrame:
        """Standard deviation divided by the mean: measured, and drawn (a mean over draws).

        Parameters
        ----------
        dim
            What is summed over: `"cells"` gives one value a gene, `"features"` one a cell.

        Returns
        -------
        DataFrame [genes or cells, "Raw" and models]; NaN where all measured counts are 0.
        """
        if dim not in ("cells", "features"):
            hint = did_you_mean(str(dim), ("cells", "features"))
            raise InvalidOptionError(
                f"Expected dim to be 'cells' or 'features'; got {dim!r}.{hint}"
            )
        self.look()
        if dim == "cells":
            values = {name: seen.variation_of_genes for name, seen in self.seen.items()}
            return self.kept("cv_gene", values, list(self.genes))
        values = {name: seen.variation_of_cells for name, seen in self.seen.items()}
        return self.kept("cv_cell", values, self.adata.obs_names[self.cells.numpy()])

    def zero_fraction(self) -> pd.DataFrame:
        """Share of the cells without a count of a gene: measured, and drawn.

        Returns
        -------
        DataFrame [genes, "Raw" and models].
        """
        self.look()
        values = {name: seen.zero_fraction for name, seen in self.seen.items()}
        return self.kept("zero_fraction", values, list(self.genes))

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
        self.look()
        values = {n: s.ranks.coverage(asked) for n, s in self.seen.items() if n != RAW}
        return self.kept("calibration", values, asked, index_name="level")

    def calibration_error(self, confidence_intervals: Sequence[float] = QUANTILES) -> pd.Series:
        """Mean squared difference of coverage and level; 0 is best.

        Parameters
        ----------
        confidence_intervals
            Quantiles that bound the intervals, rising: the first and the last bound the first one,
            and so on inwards.

        Returns
        -------
        One number a model.
        """
        import pandas as pd

        bounds = np.asarray(confidence_intervals, dtype=float)
        n = len(bounds) // 2
        rising = bounds.ndim == 1 and n and len(bounds) == 2 * n and (np.diff(bounds) > 0).all()
        if not rising or bounds[0] < 0 or bounds[-1] > 1:
            raise InvalidOptionError(
                "Expected an even number of rising quantiles from 0 to 1 in confidence_intervals, "
                f"such as [0.05, 0.25, 0.75, 0.95]; got {[*confidence_intervals]}."
            )
        self.look()
        errors = {}
        for name in self.models:
            below = self.seen[name].ranks.below(bounds)
            coverage, level = (x[::-1][:n] - x[:n] for x in (below, bounds))
            errors[name] = float(np.mean((coverage - level) ** 2))
        return pd.Series(errors, name="calibration_error")

    def differential_expression(
        self,
        de_groupby: str,
        de_method: Literal["t-test"] = "t-test",
        n_samples: int = 1,
        cell_scale_factor: float = 1e4,
        p_val_thresh: float = 0.001,
        n_top_genes_fallback: int = 100,
    ) -> pd.DataFrame:
        """Whether the genes that differ between groups differ in drawn counts too.

        Each group is compared with all other cells by Welch's t test of log(1 + x) of counts scaled
        to the same sum, in measured counts and in each draw.

        Parameters
        ----------
        de_groupby
            Column of `adata.obs` with the group of each cell.
        de_method
            Only `"t-test"`.
        n_samples
            Draws for each cell, over which scores are averaged.
        cell_scale_factor
            Sum that the counts of each cell are scaled to.
        p_val_thresh
            Adjusted p value (Benjamini and Hochberg) below which a gene counts as found.
        n_top_genes_fallback
            Genes that count as found in a group where none is below it.

        Returns
        -------
        DataFrame with a row for each model and group: `recall`, `precision` and `f1` of the genes
        found, `roc_auc` of the size of t for them, and `lfc_mae`, `lfc_pearson`, `lfc_spearman`
        of log2 fold changes.
        """
        import pandas as pd

        if de_method != "t-test":
            raise InvalidOptionError(f"Expected de_method to be 't-test'; got {de_method!r}.")
        if n_samples < 1:
            raise InvalidOptionError(f"Expected n_samples to be at least 1; got {n_samples}.")
        groups = as_categories(self.adata, de_groupby).iloc[self.cells.numpy()]
        groups = groups.cat.remove_unused_categories().cat
        names = [*groups.categories]
        if len(names) < 2:
            raise InvalidOptionError(
                f"Expected at least two groups in adata.obs['{de_groupby}'] among these cells; "
                f"got {len(names)}."
            )
        codes = torch.from_numpy(groups.codes.to_numpy().astype(np.int64))
        raw: GroupMoments | None = None
        rows: list[dict[str, Any]] = []
        for name, model in self.models.items():
            measured, draws = moments_of_groups(
                model, self.passes[name], self.raw, codes, n_samples, cell_scale_factor
            )
            raw = measured if raw is None else raw
            for code, group in enumerate(names):
                true = raw.against_rest(code)
                scores = [
                    recovery(true, drawn.against_rest(code), p_val_thresh, n_top_genes_fallback)
                    for drawn in draws
                ]
                mean = pd.DataFrame(scores).mean().to_dict()
                rows.append({"model": name, "group": group, **mean})
        table = pd.DataFrame(rows)
        self.metrics["diff_exp"] = table
        return table

    def look(self) -> None:
        """Make the passes over the cells, unless they were made."""
        if self.seen:
            return
        found: dict[str, Seen] = {}
        for name, model in self.models.items():
            raw, drawn = seen_in(model, self.passes[name], self.raw, self.n_samples)
            found.setdefault(RAW, raw)
            found[name] = drawn
        self.seen = found

    def kept(
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

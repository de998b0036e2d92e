"""Scores of integration under the names of scib-metrics, with the arguments of scvi-tools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from cellvae.errors import InvalidOptionError, quote_names
from cellvae.evaluation.integration.definitions import definitions_of
from cellvae.evaluation.integration.integration_scores import REQUIRED_COLUMNS
from cellvae.evaluation.integration.scib import scib_metrics
from cellvae.train.callbacks.evaluation.integration_cells import IntegrationKeys
from cellvae.train.callbacks.evaluation.integration_evaluation import IntegrationEvaluation
from cellvae.train.callbacks.evaluation.scib_metric_names import (
    BATCH_METRICS,
    BIO_METRICS,
    DEFAULT_BATCH_METRICS,
    DEFAULT_BIO_METRICS,
    SCIB_METRICS_PACKAGE,
    select_scib_metrics,
)
from cellvae.train.callbacks.evaluation.score_table import check_counts
from cellvae.train.loop.training_plan import TrainingPlan

Package = Literal["cellvae", "scib-metrics"]
BIO, BATCH, TOTAL = "Bio conservation", "Batch correction", "Total"


class ScibCallback(IntegrationEvaluation):
    """Logs scores of integration under the names of scib-metrics, and their means.

    Names are `"Isolated labels"`, `"KMeans NMI"`, `"KMeans ARI"`, `"Silhouette label"`, `"cLISI"`;
    `"BRAS"`, `"iLISI"`, `"KBET"`, `"Graph connectivity"`, `"PCR"`; the means `"Bio conservation"`
    and `"Batch correction"` of those that were computed, and `"Total"`, which is 0.6 of the first
    and 0.4 of the second. All can be monitored, such as `early_stopping_monitor="Total"`. The
    numbers are those of :mod:`cellvae.evaluation`, or of scib-metrics itself.

    Parameters
    ----------
    bio_conservation_metrics, batch_correction_metrics
        Which metrics: a `BioConservation` and a `BatchCorrection` of scib-metrics, a dictionary of
        the same names, or a sequence of names; True for the defaults of scib-metrics, None for
        none.
    num_rows_to_select
        How many cells are evaluated, a random sample if there are more; None for all.
    indices_list
        Which cells, by index, mask, name, or as `"validation"`; None or an empty list for all.
    batch_key, label_key
        Columns of `adata.obs` with batch and label of each cell; None for those of the set-up.
    package
        `"cellvae"`, or `"scib-metrics"`, which has to be installed (extra `scib`). Only the latter
        has `"KBET"`. `"PCR"` is always ours: the comparison of scib-metrics needs cells as they
        were before.
    every_n_epochs
        Epochs from one evaluation to the next; the last epoch is always evaluated.
    seed
        Seed of the draw, and of clusters.
    prefix
        What the names of logged metrics start with, before a slash; none by default.

    Attributes
    ----------
    scores
        One dictionary for each evaluation, with `"epoch"` and the metrics.
    definitions
        What each metric is, with the version of the package that computes it.

    Raises
    ------
    InvalidOptionError
        If there is no such metric, or a package is needed that is not installed.

    Examples
    --------
    >>> from cellvae.train.callbacks.evaluation.scib_callback import ScibCallback
    >>> ScibCallback(None, ["ilisi_knn", "bras"]).produced_metrics()
    ['BRAS', 'iLISI', 'Batch correction']
    """

    def __init__(
        self,
        bio_conservation_metrics: Any = True,
        batch_correction_metrics: Any = True,
        num_rows_to_select: int | None = 5_000,
        indices_list: Any = None,
        *,
        batch_key: str | None = None,
        label_key: str | None = None,
        package: Package = "cellvae",
        every_n_epochs: int = 5,
        seed: int = 0,
        prefix: str = "",
    ) -> None:
        if package not in ("cellvae", "scib-metrics"):
            raise InvalidOptionError(
                f"Expected package to be 'cellvae' or 'scib-metrics'; got {package!r}."
            )
        check_counts({"num_rows_to_select": num_rows_to_select})
        self.bio = select_scib_metrics(
            bio_conservation_metrics, BIO_METRICS, DEFAULT_BIO_METRICS, "bio_conservation_metrics"
        )
        self.of_batches = select_scib_metrics(
            batch_correction_metrics,
            BATCH_METRICS,
            DEFAULT_BATCH_METRICS,
            "batch_correction_metrics",
        )
        if package == "cellvae":
            self.of_batches.pop("kbet", None)
        if not self.bio and not self.of_batches:
            raise InvalidOptionError(
                "Expected one or more metrics in bio_conservation_metrics or "
                "batch_correction_metrics; got none"
                + (
                    " but KBET, which needs package='scib-metrics'."
                    if package == "cellvae"
                    else "."
                )
            )
        self.bio_conservation_metrics = bio_conservation_metrics
        self.batch_correction_metrics = batch_correction_metrics
        self.num_rows_to_select = num_rows_to_select
        self.indices_list = indices_list
        self.package = package
        self.titles = self.bio | self.of_batches
        self.sources = {name: self.source_of(name) for name in self.titles}
        everywhere = indices_list is None or (
            not isinstance(indices_list, str) and len(indices_list) == 0
        )
        metrics = [name for name in self.sources.values() if not name.startswith("scib_")]
        super().__init__(
            # Columns of the set-up are known when a run begins.
            batch_key or "batch",
            label_key or "labels",
            indices=None if everywhere else indices_list,
            n_cells=num_rows_to_select,
            seed=seed,
            every_n_epochs=every_n_epochs,
            metrics=[*metrics, "scib"] if len(metrics) < len(self.titles) else metrics,
            baseline=False,
            prefix=prefix,
        )
        self.batch_key = batch_key
        self.label_key = label_key

    def source_of(self, name: str) -> str:
        """Score of the panel that a metric is.

        Raises
        ------
        InvalidOptionError
            If the installed version of scib-metrics does not have it.
        """
        if self.package == "cellvae" or name == "pcr":
            return name
        wanted = SCIB_METRICS_PACKAGE.get(name, name)
        if wanted not in scib_metrics():
            raise InvalidOptionError(
                f"The installed version of scib-metrics has no '{wanted}' in its panel, which has "
                f"{quote_names(scib_metrics())}. Leave it out, or give package='cellvae'."
            )
        return f"scib_{wanted}"

    @property
    def definitions(self) -> dict[str, str]:
        """What each metric is, with the version of the package that computes it."""
        of_sources = definitions_of([*self.sources.values()])
        found = {self.titles[name]: of_sources[source] for name, source in self.sources.items()}
        means = {
            BIO: f"mean of {', '.join(self.bio.values())}",
            BATCH: f"mean of {', '.join(self.of_batches.values())}",
            TOTAL: f"0.6 {BIO} + 0.4 {BATCH}",
        }
        return found | {name: means[name] for name in self.aggregates()}

    def aggregates(self) -> list[str]:
        """Names of the means that are logged."""
        found = [name for name, part in ((BIO, self.bio), (BATCH, self.of_batches)) if part]
        return [*found, TOTAL] if len(found) == 2 else found

    def produced_metrics(self) -> list[str]:
        """Names of the metrics that are logged."""
        return [self.table.metric_key(name) for name in (*self.titles.values(), *self.aggregates())]

    def integration_keys(self, plan: TrainingPlan) -> IntegrationKeys:
        """Columns of batch and label, of the set-up where none are given.

        Raises
        ------
        InvalidOptionError
            If there is none that the metrics need.
        """
        keys = {
            "batch": self.setup_key(plan, self.batch_key, "batch_key"),
            "labels": self.setup_key(plan, self.label_key, "labels_key"),
        }
        for name in self.chosen:
            for part in sorted(REQUIRED_COLUMNS[name]):
                if keys[part] is None:
                    own = "batch_key" if part == "batch" else "label_key"
                    raise InvalidOptionError(
                        f"Expected {part} of the cells for '{name}', by {own}=<column of adata.obs>"
                        " of ScibCallback or in setup_anndata; got none. Give it, or leave the "
                        "metric out."
                    )
        return replace(super().integration_keys(plan), batch=keys["batch"], labels=keys["labels"])

    def setup_key(self, plan: TrainingPlan, given: str | None, name: str) -> str | None:
        """Column that is given, or that of the set-up; None without either."""
        if given is not None or plan.files is None:
            return given
        return plan.files.setup_key(name)

    def compute(self, plan: TrainingPlan) -> dict[str, float]:
        """Scores of the weights as they are, and their means; NaN where one is not known."""
        panel = super().compute(plan)
        scores = {self.titles[name]: panel[source] for name, source in self.sources.items()}
        means = {
            title: float(np.mean([scores[name] for name in part.values()])) if part else np.nan
            for title, part in ((BIO, self.bio), (BATCH, self.of_batches))
        }
        means[TOTAL] = 0.6 * means[BIO] + 0.4 * means[BATCH]
        return scores | {name: means[name] for name in self.aggregates()}

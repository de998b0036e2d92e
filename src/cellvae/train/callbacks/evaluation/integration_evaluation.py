"""Scores of integration in the course of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np

from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.evaluation.integration.definitions import definitions_of
from cellvae.evaluation.integration.integration_scores import (
    PANEL,
    REQUIRED_COLUMNS,
    integration_scores,
    panel_score_names,
)
from cellvae.train.callbacks.evaluation.cell_selection import (
    encode_latents,
    require_training_plan,
    select_cells,
)
from cellvae.train.callbacks.evaluation.integration_cells import (
    IntegrationCells,
    IntegrationKeys,
    integration_cells,
)
from cellvae.train.callbacks.evaluation.score_table import ScoreTable, check_counts
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan


class IntegrationEvaluation(pl.Callback):
    """Logs how well the latent space mixes batches and keeps labels apart, as `eval/<metric>`.

    The same cells are evaluated every time, by their posterior means; training is not changed by
    it. Higher is better for every metric, and all can be monitored in the epoch they are of.

    Parameters
    ----------
    batch_key, label_key
        Columns of `adata.obs` with batch and label of each cell; without one of them, metrics that
        need it are left out. Cells that have none are left out.
    adata
        Other cells to evaluate; None for those of the model.
    indices
        Which cells, by number, mask, name, or as `"validation"`; None for all.
    n_cells
        How many of them are evaluated, a random sample if there are more; None for all.
    seed
        Seed of the draw, and of clusters.
    every_n_epochs
        Epochs from one evaluation to the next; the last epoch is always evaluated.
    metrics
        Names of metrics: `"knn_label_accuracy"`, `"knn_label_f1"`, `"ilisi"`, `"clisi"`,
        `"asw_batch"`, `"bras"`, `"asw_label"`, `"isolated_labels"`, `"nmi"`, `"ari"`,
        `"graph_connectivity"`, `"pcr"`, and `"scib"` for the panel of the package scib-metrics. See
        :mod:`cellvae.evaluation`.
    k
        Neighbours for label transfer and the graph.
    reference
        Batches that labels are transferred from, to the cells of all others. None for training
        cells to validation cells; where there are none of both, each cell is left out in turn.
    baseline
        Whether the weights from before the first epoch are scored too.
    prefix
        What the names of logged metrics start with.
    batch_size
        Cells that are encoded at a time.

    Attributes
    ----------
    scores
        One dictionary for each evaluation, with `"epoch"` and the metrics.
    baseline_scores
        Metrics before the first epoch of the run.
    definitions
        What each metric is, with the version of the package that computes it; also in
        `model.history.notes["eval/definitions"]`.

    Raises
    ------
    InvalidOptionError
        If an argument has a value that it cannot take, or a metric needs a key that is not given.

    Examples
    --------
    >>> from cellvae.train.callbacks.evaluation.integration_evaluation import IntegrationEvaluation
    >>> IntegrationEvaluation("batch", None).produced_metrics()
    ['eval/ilisi', 'eval/asw_batch', 'eval/bras', 'eval/pcr']
    """

    group: Group = Group.PRODUCER

    @check_arguments()
    def __init__(
        self,
        batch_key: str | None = None,
        label_key: str | None = None,
        *,
        adata: Any = None,
        indices: Any = None,
        n_cells: int | None = 5_000,
        seed: int = 0,
        every_n_epochs: int = 5,
        metrics: str | Sequence[str] = PANEL,
        k: int = 15,
        reference: str | Sequence[str] | None = None,
        baseline: bool = True,
        prefix: str = "eval",
        batch_size: int = 512,
    ) -> None:
        super().__init__()
        check_counts(
            {"every_n_epochs": every_n_epochs, "k": k, "n_cells": n_cells, "batch_size": batch_size}
        )
        if batch_key is None and label_key is None:
            raise InvalidOptionError(
                "Expected batch_key, label_key or both: columns of adata.obs; got none."
            )
        if reference is not None and batch_key is None:
            raise InvalidOptionError(
                "Expected batch_key together with reference, which names batches; got none."
            )
        self.batch_key = batch_key
        self.label_key = label_key
        self.adata = adata
        self.indices = indices
        self.n_cells = n_cells
        self.seed = seed
        self.every_n_epochs = every_n_epochs
        self.metrics = metrics
        self.k = k
        self.reference = reference
        self.baseline = baseline
        self.prefix = prefix
        self.batch_size = batch_size
        self.chosen = select_metrics(metrics, batch_key, label_key)
        self.table = ScoreTable(prefix, every_n_epochs)
        self.cells: IntegrationCells | None = None

    @property
    def scores(self) -> list[dict[str, Any]]:
        """One dictionary for each evaluation, with `"epoch"` and the metrics."""
        return self.table.rows

    @property
    def baseline_scores(self) -> dict[str, float]:
        """Metrics before the first epoch of the run."""
        return self.table.baseline

    @property
    def definitions(self) -> dict[str, str]:
        """What each metric is, with the version of the package that computes it."""
        return definitions_of(panel_score_names(self.chosen))

    @property
    def state_key(self) -> str:
        """Name of the state; evaluations with different prefixes go side by side."""
        return f"{type(self).__qualname__}[{self.prefix}]"

    def produced_metrics(self) -> list[str]:
        """Names of the metrics that are logged."""
        return [self.table.metric_key(name) for name in panel_score_names(self.chosen)]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run, and choose the cells of this one.

        Raises
        ------
        InvalidOptionError, InvalidDataError
            If there are too few cells, batches or labels for the metrics.
        """
        self.table.clear()
        plan = require_training_plan(pl_module, self)
        note = plan.history.notes.setdefault(self.table.metric_key("definitions"), {})
        note.update(self.definitions)
        self.cells = integration_cells(
            plan,
            select_cells(plan, self.indices, self.adata),
            self.integration_keys(plan),
            k=self.k,
            n_cells=self.n_cells,
            seed=self.seed,
        )

    def integration_keys(self, plan: TrainingPlan) -> IntegrationKeys:
        """Columns of batch and label, and what is made of them."""
        return IntegrationKeys(
            batch=self.batch_key,
            labels=self.label_key,
            metrics=self.chosen,
            reference=self.reference,
        )

    def compute(self, plan: TrainingPlan) -> dict[str, float]:
        """Scores of the weights as they are; NaN where latents are not finite."""
        assert self.cells is not None
        points = encode_latents(plan, self.cells.cells, self.batch_size)
        if not np.isfinite(points).all():
            return dict.fromkeys(panel_score_names(self.chosen), float("nan"))
        return integration_scores(
            points,
            self.cells.batch,
            self.cells.labels,
            metrics=self.chosen,
            k=self.k,
            train=self.cells.train,
            test=self.cells.test,
            seed=self.seed,
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the weights from before the first epoch."""
        if self.baseline:
            self.table.at_start(trainer, require_training_plan(pl_module, self), self.compute)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the epoch, if it is one of those that are."""
        self.table.at_epoch_end(trainer, require_training_plan(pl_module, self), self.compute)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the last epoch of a run that ended early."""
        if self.cells is not None:
            self.table.at_end(trainer, require_training_plan(pl_module, self), self.compute)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let go of the cells; the scores stay."""
        self.cells = None

    def state_dict(self) -> dict[str, Any]:
        """Scores so far, as plain numbers."""
        return self.table.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the scores of a resumed run."""
        self.table.load_state_dict(state_dict)


def select_metrics(
    metrics: str | Sequence[str], batch_key: str | None, label_key: str | None
) -> tuple[str, ...]:
    """Requested metrics, or those of the default panel that the keys allow.

    Raises
    ------
    InvalidOptionError
        If there is no such metric, or it needs a key that is not given.
    """
    given = {what for what, key in (("batch", batch_key), ("labels", label_key)) if key is not None}
    if tuple(metrics) == PANEL:
        return tuple(name for name in PANEL if given >= REQUIRED_COLUMNS[name])
    chosen = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    panel_score_names(chosen)
    for name in chosen:
        absent = REQUIRED_COLUMNS[name] - given
        if absent:
            keys = " and ".join("batch_key" if a == "batch" else "label_key" for a in absent)
            raise InvalidOptionError(f"Expected {keys} for the metric '{name}'; got none.")
    if not chosen:
        raise InvalidOptionError(
            f"Expected one or more metrics of {', '.join(REQUIRED_COLUMNS)}; got none."
        )
    return tuple(dict.fromkeys(chosen))

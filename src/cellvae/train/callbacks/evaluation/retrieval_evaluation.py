"""Scores of retrieval in the course of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd

from cellvae.core.options import check_arguments
from cellvae.errors import InvalidDataError, InvalidOptionError
from cellvae.evaluation.retrieval import (
    RANKING_SCORES,
    SCORES_AT_K,
    Distance,
    retrieval_scores,
    score_names,
)
from cellvae.train.callbacks.evaluation.cell_selection import (
    CellSelection,
    require_training_plan,
    select_cells,
    subsample,
)
from cellvae.train.callbacks.evaluation.retrieval_cells import (
    RetrievalCells,
    select_retrieval_cells,
)
from cellvae.train.callbacks.evaluation.score_table import ScoreTable, check_counts
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan

METRICS = ("precision", "recall", "map", "ndcg", "hit", "mrr", "r_precision", "f1", "dcg")
Custom = Callable[..., float] | tuple[Callable[..., float], Mapping[str, Any]]


class RetrievalEvaluation(pl.Callback):
    """Logs how many of the cells nearest to a cell have its label, as `eval/precision@20`.

    Every query is matched with the indexed cells by posterior means; an indexed cell is relevant
    where it has the label of the query. Means are over queries that have something to find.
    Training is not changed by it, and all metrics can be monitored in the epoch they are of.

    Parameters
    ----------
    query
        Cells that others are found for: numbers, a mask or names of the model's own cells,
        `"train"`, `"validation"` or `"test"` for those of the split, None for all; or an AnnData.
    index
        Cells that are found, given likewise; None for the cells of the queries.
    label_key
        Column of `adata.obs` with the label of each cell; cells that have none are left out.
    k
        Matches of a query.
    metric
        Whether near means a large cosine or a small Euclidean distance.
    exclude_self
        Whether a cell is no match for itself.
    exclude_same_batch
        Column of `adata.obs`: cells with the value of the query are no match for it.
    metrics
        Names of metrics: `"precision"`, `"recall"`, `"map"`, `"ndcg"`, `"hit"`, `"f1"` and `"dcg"`
        of the k matches; `"mrr"` and `"r_precision"` of all candidates in order.
    custom
        Further metrics: functions of which matches are relevant [queries, k] and how many relevant
        cells there are to find [queries], or each with a dictionary of further keywords.
    every_n_epochs
        Epochs from one evaluation to the next; the last epoch is always evaluated.
    n_cells
        How many queries and how many indexed cells there are at most, drawn if there are more; None
        for all.
    n_examples
        Queries whose matches are kept in `examples`.
    seed
        Seed of the draw.
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
    examples, baseline_examples
        Matches of the first queries after the last evaluation and before the first epoch; in the
        first process of a run.

    Raises
    ------
    InvalidOptionError
        If an argument has a value that it cannot take.

    Examples
    --------
    >>> from cellvae.train.callbacks.evaluation.retrieval_evaluation import RetrievalEvaluation
    >>> found = RetrievalEvaluation(label_key="cell_type", k=5, metrics=("precision", "mrr"))
    >>> found.produced_metrics()
    ['eval/precision@5', 'eval/mrr']
    """

    group: Group = Group.PRODUCER

    @check_arguments("metrics")
    def __init__(
        self,
        query: Any = None,
        index: Any = None,
        *,
        label_key: str,
        k: int = 20,
        metric: Distance = "cosine",
        exclude_self: bool = True,
        exclude_same_batch: str | None = None,
        metrics: Sequence[str] = METRICS,
        custom: Mapping[str, Custom] | None = None,
        every_n_epochs: int = 1,
        n_cells: int | None = 5_000,
        n_examples: int = 5,
        seed: int = 0,
        baseline: bool = True,
        prefix: str = "eval",
        batch_size: int = 512,
    ) -> None:
        super().__init__()
        check_counts(
            {"k": k, "every_n_epochs": every_n_epochs, "n_cells": n_cells, "batch_size": batch_size}
        )
        if metric not in ("cosine", "euclidean"):
            raise InvalidOptionError(
                f"Expected metric to be 'cosine' or 'euclidean'; got {metric!r}."
            )
        if n_examples < 0:
            raise InvalidOptionError(f"Expected n_examples to be at least 0; got {n_examples}.")
        self.query = query
        self.index = index
        self.label_key = label_key
        self.k = k
        self.metric: Distance = metric
        self.exclude_self = exclude_self
        self.exclude_same_batch = exclude_same_batch
        self.metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
        self.custom = dict(custom or {})
        self.every_n_epochs = every_n_epochs
        self.n_cells = n_cells
        self.n_examples = n_examples
        self.seed = seed
        self.baseline = baseline
        self.prefix = prefix
        self.batch_size = batch_size
        self.names = [*score_names(self.metrics, k), *self.custom]
        if not self.names or len(set(self.names)) < len(self.names):
            raise InvalidOptionError(
                f"Expected one or more metrics of different names, of {', '.join(SCORES_AT_K)}, "
                f"{', '.join(RANKING_SCORES)} and custom ones; got {self.names}."
            )
        self.table = ScoreTable(prefix, every_n_epochs)
        self.examples: list[dict[str, Any]] = []
        self.baseline_examples: list[dict[str, Any]] = []
        self.retrieval_cells: RetrievalCells | None = None

    @property
    def scores(self) -> list[dict[str, Any]]:
        """One dictionary for each evaluation, with `"epoch"` and the metrics."""
        return self.table.rows

    @property
    def baseline_scores(self) -> dict[str, float]:
        """Metrics before the first epoch of the run."""
        return self.table.baseline

    @property
    def state_key(self) -> str:
        """Name of the state; evaluations with different prefixes or labels go side by side."""
        return f"{type(self).__qualname__}[{self.prefix}, {self.label_key}, {self.k}]"

    def produced_metrics(self) -> list[str]:
        """Names of the metrics that are logged."""
        return [self.table.metric_key(name) for name in self.names]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run, and choose queries and indexed cells of this one.

        Raises
        ------
        InvalidDataError
            If no query has a label that an indexed cell has.
        """
        self.table.clear()
        self.examples, self.baseline_examples = [], []
        plan = require_training_plan(pl_module, self)
        query = self.labelled_cells(select_cells(plan, self.query))
        same = self.index is None
        index = query if same else self.labelled_cells(select_cells(plan, self.index))
        self.retrieval_cells = select_retrieval_cells(
            query,
            index,
            self.label_key,
            exclude_self=self.exclude_self,
            exclude_same=self.exclude_same_batch,
        )

    def labelled_cells(self, cells: CellSelection) -> CellSelection:
        """Those of the cells that have a label, or some of them if there are many."""
        there = np.flatnonzero(~pd.isna(cells.column(self.label_key)))
        if not len(there):
            raise InvalidDataError(
                f"Expected cells with a label in '{self.label_key}' for RetrievalEvaluation; got "
                f"none of {len(cells.indices):,}."
            )
        return cells.select(subsample(there, self.n_cells, self.seed))

    def compute(self, plan: TrainingPlan) -> dict[str, float]:
        """Scores of the weights as they are, with examples; NaN where latents are not finite."""
        assert self.retrieval_cells is not None
        query, index = self.retrieval_cells.points(plan, self.batch_size)
        if not (np.isfinite(query).all() and np.isfinite(index).all()):
            return dict.fromkeys(self.names, float("nan"))
        found = self.retrieval_cells.match(query, index, self.k, self.metric)
        self.examples = self.retrieval_cells.examples(found, self.n_examples)
        scores = retrieval_scores(found, self.metrics, self.k)
        some = found.n_relevant > 0
        for name, given in self.custom.items():
            function, kwargs = given if isinstance(given, tuple) else (given, {})
            scores[name] = float(function(found.relevant[some], found.n_relevant[some], **kwargs))
        return scores

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the weights from before the first epoch."""
        plan = require_training_plan(pl_module, self)
        if self.baseline and self.table.at_start(trainer, plan, self.compute):
            self.baseline_examples, self.examples = self.examples, []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the epoch, if it is one of those that are."""
        self.table.at_epoch_end(trainer, require_training_plan(pl_module, self), self.compute)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the last epoch of a run that ended early."""
        if self.retrieval_cells is not None:
            self.table.at_end(trainer, require_training_plan(pl_module, self), self.compute)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let go of the cells; scores and examples stay."""
        self.retrieval_cells = None

    def state_dict(self) -> dict[str, Any]:
        """Scores and examples so far, as plain values."""
        return {
            "table": self.table.state_dict(),
            "examples": self.examples,
            "baseline_examples": self.baseline_examples,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the scores and examples of a resumed run."""
        self.table.load_state_dict(state_dict["table"])
        self.examples = list(state_dict["examples"])
        self.baseline_examples = list(state_dict["baseline_examples"])

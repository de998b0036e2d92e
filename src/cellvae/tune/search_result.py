"""Result of a search: a table of trials, their metrics by epoch, and the best model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.estimator.model import Model
from cellvae.tune.search_space import flat_params
from cellvae.tune.trial import BEST, RECORD

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    """A trial as it ended.

    Parameters
    ----------
    name
        Name of the trial, and of its folder.
    config
        Options that vary, of the model and of `train`.
    metrics
        Metrics by epoch; a column `epoch`.
    error
        What ended it, if it failed.
    """

    name: str
    config: Mapping[str, Any]
    metrics: pd.DataFrame
    error: BaseException | None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Trials of a search.

    Parameters
    ----------
    table
        One row for each trial, the best first: `status` (`"completed"`, `"stopped"` by the
        scheduler, `"failed"`), `epochs`, `best_epoch` (counted from 1), the metrics of that epoch,
        `seconds`, the options that vary, and `error`.
    history
        Metrics of all trials: columns `trial`, `epoch` and the metrics.
    configs
        Options of each trial, all of them, as `{"model_params": ..., "train_params": ...}`.
    metric, mode
        Metric that decides, and whether lower or higher is better.
    folder
        Folder of the search.
    model_class
        Class of the models.
    adata
        Cells of the search.
    result_grid
        What Ray returned.
    """

    table: pd.DataFrame
    history: pd.DataFrame
    configs: Mapping[str, dict[str, Any]]
    metric: str
    mode: Literal["min", "max"]
    folder: Path
    model_class: type[Model]
    adata: Any
    result_grid: Any

    @property
    def best_trial(self) -> str:
        """Name of the best trial."""
        return str(self.table.index[0])

    @property
    def best_score(self) -> float:
        """Best value of the metric."""
        return float(self.table[self.metric].iloc[0])

    @property
    def best_config(self) -> dict[str, Any]:
        """Options of the best trial, of the model and of `train`."""
        return self.configs[self.best_trial]

    def best_model(self, adata: Any = None) -> Model:
        """The model of the best epoch of the best trial, loaded.

        Parameters
        ----------
        adata
            Cells for it; None for those of the search.
        """
        return self.model(self.best_trial, adata)

    def model(self, trial: str, adata: Any = None) -> Model:
        """The model of the best epoch of a trial, loaded.

        Parameters
        ----------
        trial
            Name of the trial, as in the index of `table`.
        adata
            Cells for it; None for those of the search.

        Raises
        ------
        InvalidOptionError
            If there is no such trial, or it has no model.
        """
        path = self.folder / "trials" / trial / BEST / "model"
        if trial not in self.table.index or not path.is_dir():
            raise InvalidOptionError(
                f"Expected a trial with a model; got '{trial}'. They are: "
                f"{', '.join(self.table.index[self.table['best_epoch'].notna()])}."
            )
        return self.model_class.load(path, self.adata if adata is None else adata)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The metric by epoch, a line for each trial, the best marked."""
        from cellvae.plotting.search_curves import search_curves

        return search_curves(self.history, self.metric, self.best_trial, ax)

    def __repr__(self) -> str:
        return (
            f"SearchResult of {len(self.table)} trials: {self.metric} is {self.best_score:.6g} "
            f"with {flat_params(self.best_config)!r}"
        )


def summarise_trial(trial: FinishedTrial, metric: str, mode: str, folder: Path) -> dict[str, Any]:
    """Row of the table of trials."""
    row: dict[str, Any] = {"trial": trial.name, "status": "failed", "epochs": 0, "best_epoch": None}
    metrics = trial.metrics
    values = metrics[metric].dropna() if metric in metrics else pd.Series(dtype=float)
    if len(values):
        best = values.idxmin() if mode == "min" else values.idxmax()
        row["epochs"], row["best_epoch"] = int(metrics["epoch"].max()), int(metrics["epoch"][best])
        row |= metrics.drop(columns="epoch").loc[best].to_dict()
    record = folder / "trials" / trial.name / RECORD
    report = json.loads(record.read_text()) if record.exists() else {}
    if trial.error is None:
        # A trial that the scheduler stopped may have been ended before it wrote its record.
        stopped = "search stopped" in report.get("reason", "search stopped")
        row["status"] = "stopped" if stopped else report["status"]
    params = {name.rpartition("_params/")[2]: v for name, v in flat_params(trial.config).items()}
    message = None if trial.error is None else last_line(trial.error)
    return {**row, "seconds": report.get("seconds"), **params, "error": message}


def last_line(error: BaseException) -> str:
    """Last line of a message, which of an error in another process says what it was."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def table_of_trials(
    trials: list[FinishedTrial], metric: str, mode: Literal["min", "max"], folder: Path
) -> pd.DataFrame:
    """Table of trials, the best first.

    Raises
    ------
    TrainingError
        If no trial has a value of the metric.
    """
    rows = [summarise_trial(trial, metric, mode, folder) for trial in trials]
    table = pd.DataFrame(rows).set_index("trial")
    if metric not in table or table[metric].isna().all():
        errors = table["error"].dropna()
        text = f" The first failed with: {errors.iloc[0]}" if len(errors) else ""
        raise TrainingError(
            f"None of {len(table)} trials has a value of '{metric}'.{text} See {folder / 'trials'}."
        )
    return table.sort_values(metric, ascending=mode == "min", kind="stable", na_position="last")


def history_of_trials(trials: list[FinishedTrial]) -> pd.DataFrame:
    """Metrics of all trials by epoch."""
    parts = [trial.metrics.assign(trial=trial.name) for trial in trials if len(trial.metrics)]
    whole = pd.concat(parts, ignore_index=True)
    return whole[["trial", "epoch", *(c for c in whole if c not in ("trial", "epoch"))]]

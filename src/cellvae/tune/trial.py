"""One trial of a search: a model with the options of the trial, trained in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cellvae.core.files.output_files import replace_atomically
from cellvae.errors import StopTraining
from cellvae.estimator.model import Model
from cellvae.tune.search_cells import SharedCells
from cellvae.tune.search_space import MODEL, TRAIN, merge_params

BEST, STATE, RECORD = "best", "state", "trial.json"
"""Parts of the folder of a trial: its best model, the state to resume from, and how it ended."""

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class TrialTask:
    """What all trials of a search have in common.

    Parameters
    ----------
    model_class
        Class of the models.
    metrics
        Names of the metrics that are reported; the first decides.
    mode
        Whether lower or higher is better.
    seed
        Seed of every trial, so that all have the same split.
    n_threads
        Threads of a trial.
    folder
        Folder with one folder for each trial.
    fixed
        Options of the model and of `train` that do not vary.
    callbacks
        Callbacks that log the metrics of the search.
    """

    model_class: type[Model]
    metrics: tuple[str, ...]
    mode: Literal["min", "max"]
    seed: int
    n_threads: int
    folder: Path
    fixed: Mapping[str, Any] = field(default_factory=dict)
    callbacks: tuple[Any, ...] = ()


def train_trial(
    config: Mapping[str, Any], task: TrialTask, cells: SharedCells, trial_id: str, report: Report
) -> None:
    """Make and train the model of a trial, from where it was killed if it was.

    Parameters
    ----------
    config
        Options of the model and of `train` that vary.
    task
        What all trials have in common.
    cells
        Cells, as they came to this process.
    trial_id
        Name of the trial, and of its folder.
    report
        Function that is given the metrics of an epoch, and `"epoch"`, the number of epochs so far.
        It may raise SystemExit where the trial is not worth more.
    """
    from cellvae.settings import settings
    from cellvae.train.callbacks.checkpointing.save_checkpoint import SaveCheckpoint
    from cellvae.train.callbacks.monitoring.report_metrics import ReportMetrics
    from cellvae.train.options.callback_kwargs import callbacks_from_mapping

    settings.seed = task.seed
    settings.num_threads = task.n_threads
    folder = task.folder / trial_id
    adata = cells.open(task.model_class)
    params = merge_params(task.fixed, config)
    model = task.model_class(adata, **params.get(MODEL, {}))
    given = {**params.get(TRAIN, {})}
    callbacks, removed = callbacks_from_mapping(given.pop("callbacks", None))

    def report_epoch(epoch: int, metrics: dict[str, float]) -> None:
        try:
            report({"epoch": epoch, **metrics})
        except SystemExit as stop:
            raise StopTraining("the search stopped the trial") from stop

    own = [
        *task.callbacks,
        *callbacks,
        SaveCheckpoint(
            folder / BEST,
            "model",
            task.metrics[0],
            load_best_on_end=False,
            mode=task.mode,
            enable_version_counter=False,
            save_on_exception=False,
        ),
        ReportMetrics(report_epoch, task.metrics),
    ]
    model.train(
        **given,
        callbacks={**dict.fromkeys(removed), **{str(i): c for i, c in enumerate(own)}},
        seed=task.seed,
        run_dir=folder,
        resume="auto",
    )
    assert model.training_report is not None
    with replace_atomically(folder / RECORD) as path:
        path.write_text(json.dumps(model.training_report.to_json(), default=str))

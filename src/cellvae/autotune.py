"""Searches under the names and with the arguments that scvi-tools has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from cellvae.core.log import logger
from cellvae.errors import InvalidOptionError, missing_name_error
from cellvae.estimator.model import Model
from cellvae.tune.run_search import run
from cellvae.tune.search_result import SearchResult

__all__ = ["AutotuneExperiment", "run_autotune"]

NOT_HERE = {
    "ScibTuneReportCheckpointCallback": (
        "give its metric to run_autotune or tune.run, such as metrics='Total'"
    ),
}
"""Parts of scvi-tools that are not here, and what to use in their place."""
ASHA_DEFAULTS = {"grace_period": 1, "reduction_factor": 2}
NEVER = 1_000_000


@dataclass(frozen=True, kw_only=True)
class AutotuneExperiment:
    """A search that is done, with the attributes that scvi-tools gives it.

    Parameters
    ----------
    model_cls, data
        Class of the models, and their cells.
    metrics, mode
        Names of the metrics, of which the first decides, and its direction.
    search_space, num_samples
        Options, and how many trials there were.
    seed
        Seed, as it was given.
    experiment_name, logging_dir
        Name of the search, and the folder it is in.
    result
        The search as `tune.run` returns it: table, figure, best model.
    """

    model_cls: type[Model]
    data: Any
    metrics: list[str]
    mode: Literal["min", "max"]
    search_space: Mapping[str, Any]
    num_samples: int
    seed: int | None
    experiment_name: str
    logging_dir: str
    result: SearchResult

    @property
    def result_grid(self) -> Any:
        """Results as Ray returned them."""
        return self.result.result_grid


def run_autotune(
    model_cls: type[Model],
    data: Any,
    metrics: str | list[str],
    mode: Literal["min", "max"],
    search_space: Mapping[str, Any],
    num_samples: int,
    scheduler: Literal["asha", "hyperband", "median", "fifo"] = "asha",
    searcher: Literal["hyperopt", "random"] = "hyperopt",
    seed: int | None = None,
    resources: Mapping[str, float] | None = None,
    experiment_name: str | None = None,
    logging_dir: str | None = None,
    save_checkpoints: bool = False,
    scheduler_kwargs: Mapping[str, Any] | None = None,
    searcher_kwargs: Mapping[str, Any] | None = None,
    scib_stage: str | None = "train_end",
    scib_subsample_rows: int | None = 5000,
    scib_indices_list: Sequence[int] | None = None,
    log_to_driver: bool = False,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    n_jobs: int = 1,
    solver: str = "arpack",
    mudata_file_name: str = "mydata.h5mu",
) -> AutotuneExperiment:
    """Search for options with the arguments of scvi-tools; :func:`cellvae.tune.run` has more.

    Parameters
    ----------
    model_cls, data, num_samples, scheduler, seed, resources
        As for :func:`cellvae.tune.run`.
    metrics, mode
        Names of metrics, of which the first decides, and its direction.
    search_space
        `{"model_params": {...}, "train_params": {...}}`.
    searcher
        `"hyperopt"` draws at random, and says so, where the package hyperopt is not installed.
    experiment_name, logging_dir
        Name of the search, and the folder it is written in (`searches`).
    scheduler_kwargs, searcher_kwargs
        Further arguments of these classes of Ray. Runs are never cut before their `max_epochs`.
    scib_stage
        Whether scores of integration are computed at `"train_end"` or `"validation_end"`.
    scib_subsample_rows, scib_indices_list
        How many cells are scored, and which.
    save_checkpoints, log_to_driver, ignore_reinit_error, n_jobs, solver, mudata_file_name
        Without effect: the best model of each trial is always saved, a running Ray is always used,
        and scores are computed here.
    local_mode
        Not supported by Ray any more; refused.

    Returns
    -------
    AutotuneExperiment
        The search; `result` has its table, figure and best model.

    Raises
    ------
    UnknownOptionError, InvalidOptionError, NotSetUpError, TrainingError, ImportError
        As for :func:`cellvae.tune.run`.
    """
    if local_mode:
        raise InvalidOptionError("Expected local_mode=False: Ray has no local mode any more.")
    if scib_stage not in ("train_end", "validation_end"):
        raise InvalidOptionError(
            f"Expected scib_stage to be 'train_end' or 'validation_end'; got {scib_stage!r}."
        )
    drawn_at_random = searcher == "hyperopt" and find_spec("hyperopt") is None
    if drawn_at_random:
        logger.info(
            "hyperopt is not installed, so options are drawn at random. To have them chosen by "
            "earlier trials: pip install hyperopt"
        )
    asha = ASHA_DEFAULTS if scheduler == "asha" else {}
    # At the end of a run every evaluation is due.
    chosen = scib_indices_list is not None and len(scib_indices_list) > 0
    result = run(
        model_cls,
        data,
        search_space,
        metrics,
        mode,
        num_samples,
        scheduler,
        "random" if drawn_at_random else searcher,
        resources,
        seed,
        "searches" if logging_dir is None else logging_dir,
        experiment_name,
        evaluation={
            "every_n_epochs": NEVER if scib_stage == "train_end" else 1,
            "n_cells": scib_subsample_rows,
            "indices": scib_indices_list if chosen else None,
        },
        scheduler_kwargs={**asha, **(scheduler_kwargs or {})},
        searcher_kwargs={} if drawn_at_random else dict(searcher_kwargs or {}),
    )
    return AutotuneExperiment(
        model_cls=model_cls,
        data=data,
        metrics=[metrics] if isinstance(metrics, str) else [*metrics],
        mode=mode,
        search_space=search_space,
        num_samples=num_samples,
        seed=seed,
        experiment_name=result.folder.name,
        logging_dir=str(result.folder.parent),
        result=result,
    )


def __getattr__(name: str) -> Any:
    raise missing_name_error("cellvae.autotune", name, NOT_HERE, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)

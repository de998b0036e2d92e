"""Adapter of Ray Tune, the only module that imports Ray; it does when a search begins."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cellvae.core.log import logger
from cellvae.errors import InvalidOptionError
from cellvae.tune.domains import Choice, Interval
from cellvae.tune.search_cells import SharedCells
from cellvae.tune.search_options import SearchOptions
from cellvae.tune.search_result import FinishedTrial
from cellvae.tune.trial import TrialTask, train_trial

EPOCH = "epoch"
ENVIRONMENT = {
    # Paths that a user gives are relative to his own folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Files are those of the trials; Ray's own are what it needs to read its results.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
SEARCHER_PACKAGES = {"hyperopt": "hyperopt", "optuna": "optuna"}


def import_ray() -> Any:
    """Package ray, with its module tune.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import ray
        import ray.tune
    except ImportError as error:
        raise ImportError(
            "Expected the package ray with its part tune, which runs searches; it is not "
            "installed. Install it with: pip install 'cellvae[tune]'"
        ) from error
    return ray


@contextlib.contextmanager
def ray_session(ray: Any) -> Iterator[None]:
    """Context with Ray running: as the user has started it, else on this machine for the search."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if not before[name]})
    own = not ray.is_initialized()
    try:
        if own:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        if own:
            ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def run_trials(
    task: TrialTask,
    cells: SharedCells,
    space: Mapping[str, Any],
    options: SearchOptions,
    *,
    max_epochs: int,
    folder: Path,
    resume: bool,
) -> Any:
    """Run the trials of a search, or what is left of them; returns Ray's results.

    Parameters
    ----------
    task, cells
        What all trials have in common.
    space
        Options that vary.
    options
        How trials are drawn and stopped.
    max_epochs
        Epochs of the longest trial.
    folder
        Folder of the search.
    resume
        Whether a search is in the folder, to go on with.
    """
    ray = import_ray()
    tune = ray.tune
    with ray_session(ray):
        resources = {name: n for name, n in options.trial_resources().items() if n}
        check_resources(ray, resources)
        trainable: Any = tune.with_parameters(train_in_ray, task=task, cells=cells)
        trainable = tune.with_resources(trainable, resources)
        domains = to_ray(space, tune)
        if resume and tune.Tuner.can_restore(str(folder)):
            tuner = tune.Tuner.restore(
                str(folder), trainable, resume_unfinished=True, param_space=domains
            )
        else:
            tuner = tune.Tuner(
                trainable,
                param_space=domains,
                tune_config=tune.TuneConfig(
                    search_alg=make_searcher(options, task),
                    scheduler=make_scheduler(options, task, max_epochs),
                    num_samples=options.num_samples,
                    max_concurrent_trials=(
                        None if options.searcher == "random" else options.max_concurrent_trials
                    ),
                    time_budget_s=options.time_budget,
                    # A trial that was stopped may still be at work in its process.
                    reuse_actors=False,
                ),
                run_config=tune.RunConfig(
                    name=folder.name,
                    storage_path=str(folder.parent),
                    verbose=0,
                    callbacks=make_callbacks(task, options),
                ),
            )
        return tuner.fit()


def train_in_ray(config: dict[str, Any], task: TrialTask, cells: SharedCells) -> None:
    """Train a trial, in a process of Ray."""
    from ray import tune

    def report(metrics: dict[str, Any]) -> None:
        tune.report(metrics)

    train_trial(config, task, cells, tune.get_context().get_trial_id(), report)


def check_resources(ray: Any, resources: Mapping[str, float]) -> None:
    """Check that there is a machine for a trial; Ray would wait for one for ever.

    Raises
    ------
    InvalidOptionError
        If there is none.
    """
    there = ray.cluster_resources()
    for name, key in (("cpu", "CPU"), ("gpu", "GPU"), ("memory", "memory")):
        if resources.get(name, 0) > there.get(key, 0):
            raise InvalidOptionError(
                f"Expected resources['{name}'] to be at most {there.get(key, 0):g}, all that there "
                f"is; got {resources[name]:g}."
            )


def to_ray(params: Mapping[str, Any], tune: Any) -> dict[str, Any]:
    """Options with Ray's own domains."""
    return {name: domain_to_ray(value, tune) for name, value in params.items()}


def domain_to_ray(value: Any, tune: Any) -> Any:
    """A domain as Ray has it, also those within its choices."""
    if isinstance(value, Choice):
        values = [domain_to_ray(one, tune) for one in value.values]
        return tune.grid_search(values) if value.every else tune.choice(values)
    if isinstance(value, Interval):
        kind = ("log" if value.log else "") + ("randint" if value.integer else "uniform")
        return getattr(tune, kind)(value.lower, value.upper)
    return to_ray(value, tune) if type(value) is dict else value


def make_scheduler(options: SearchOptions, task: TrialTask, max_epochs: int) -> Any:
    """Scheduler of Ray that stops trials; it counts epochs."""
    from ray.tune import schedulers

    metric: dict[str, Any] = {"time_attr": EPOCH, "metric": task.metrics[0], "mode": task.mode}
    # The warm-up of the KL term and of the network makes first epochs say little.
    first = max(1, max_epochs // 10)
    if options.scheduler == "asha":
        # One more than the last, or the scheduler would end each run before its own end.
        made = {"max_t": max_epochs + 1, "grace_period": first, "reduction_factor": 3}
        return schedulers.ASHAScheduler(**{**metric, **made, **options.scheduler_kwargs})
    if options.scheduler == "hyperband":
        made = {"max_t": max_epochs + 1}
        return schedulers.HyperBandScheduler(**{**metric, **made, **options.scheduler_kwargs})
    if options.scheduler == "median":
        made = {"grace_period": first}
        return schedulers.MedianStoppingRule(**{**metric, **made, **options.scheduler_kwargs})
    return schedulers.FIFOScheduler()


def make_searcher(options: SearchOptions, task: TrialTask) -> Any:
    """Algorithm of Ray that draws the options of trials.

    Raises
    ------
    ImportError
        If its package is not installed.
    """
    from ray.tune import search

    if options.searcher == "random":
        made = {
            "random_state": task.seed,
            "max_concurrent": options.max_concurrent_trials or 0,
        }
        return search.BasicVariantGenerator(**{**made, **options.searcher_kwargs})
    metric: dict[str, Any] = {"metric": task.metrics[0], "mode": task.mode}
    try:
        if options.searcher == "hyperopt":
            from ray.tune.search.hyperopt import HyperOptSearch

            made = {**metric, "random_state_seed": task.seed}
            return HyperOptSearch(**{**made, **options.searcher_kwargs})
        from ray.tune.search.optuna import OptunaSearch

        return OptunaSearch(**{**metric, "seed": task.seed, **options.searcher_kwargs})
    except (ImportError, AssertionError) as error:
        package = SEARCHER_PACKAGES[options.searcher]
        raise ImportError(
            f"Expected the package {package} for searcher='{options.searcher}'; it is not "
            f"installed. Install it with: pip install {package}. Or give searcher='random'."
        ) from error


def make_callbacks(task: TrialTask, options: SearchOptions) -> list[Any]:
    """Callbacks of Ray: the file of metrics of each trial, and a line when one ends."""
    from ray.tune import Callback
    from ray.tune.logger import JsonLoggerCallback

    class TrialLines(Callback):
        """Prints a line when a trial ends."""

        def __init__(self) -> None:
            self.best: float | None = None
            self.n_done = 0

        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            """Print the metric of a trial, and the best so far."""
            self.n_done += 1
            value = trial.last_result.get(task.metrics[0])
            if value is None:
                return
            score = trial.metric_analysis[task.metrics[0]][task.mode]
            better = min if task.mode == "min" else max
            self.best = score if self.best is None else better(self.best, score)
            logger.info(
                "Trial %s, %d of %d: %s %.6g after %d epochs (best %.6g)",
                *(trial.trial_id, self.n_done, max(len(trials), options.num_samples)),
                *(task.metrics[0], value, trial.last_result[EPOCH], self.best),
            )

        def on_trial_error(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            """Print that a trial failed."""
            self.n_done += 1
            logger.info("Trial %s failed; see the table of the result.", trial.trial_id)

    return [JsonLoggerCallback(), *([TrialLines()] if options.progress else [])]


def finished_trials(results: Any, metrics: tuple[str, ...]) -> list[FinishedTrial]:
    """Trials of Ray's results."""
    found = []
    for number, result in enumerate(results):
        last, frame = result.metrics or {}, result.metrics_dataframe
        columns = [EPOCH, *metrics]
        if frame is None or EPOCH not in frame:
            frame = pd.DataFrame(columns=columns, dtype=float)
        frame = frame[[name for name in columns if name in frame]]
        # A trial that was resumed reports an epoch twice.
        frame = frame.drop_duplicates(EPOCH, keep="last").reset_index(drop=True)
        name = last.get("trial_id") or trial_name(result.path, number)
        found.append(
            FinishedTrial(name=name, config=result.config or {}, metrics=frame, error=result.error)
        )
    return found


def trial_name(path: str | None, number: int) -> str:
    """Name of a trial that reported nothing, from its folder `<function>_<name>_<number>_...`."""
    parts = Path(path or "").name.split("_")
    return "_".join(parts[3:5]) if len(parts) > 4 else str(number)

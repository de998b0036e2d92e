"""A search for options of a model and of its training."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellvae.core.files.output_files import check_output_folder, replace_atomically
from cellvae.core.options import from_kwargs
from cellvae.core.seeds import draw_seed
from cellvae.errors import InvalidOptionError, ResumeError
from cellvae.settings import settings
from cellvae.tune.domains import is_domain
from cellvae.tune.ray_adapter import finished_trials, import_ray, run_trials
from cellvae.tune.search_cells import SharedCells
from cellvae.tune.search_metrics import check_metrics, score_callbacks, search_metric_names
from cellvae.tune.search_options import Mode, SearchOptions
from cellvae.tune.search_result import SearchResult, history_of_trials, table_of_trials
from cellvae.tune.search_space import (
    MODEL,
    TRAIN,
    SearchSpace,
    describe_space,
    flat_params,
    merge_params,
    split_params,
)
from cellvae.tune.trial import STATE, TrialTask

if TYPE_CHECKING:
    from cellvae.estimator.model import Model

RECORD_OF_SEARCH = "search.json"
OWN_TRAIN_PARAMS = ("seed", "run_dir", "resume", "ckpt_path", "datamodule")


def run(
    model_class: type[Model],
    data: Any,
    search_space: Mapping[str, Any],
    metric: str | Sequence[str] = "elbo_validation",
    mode: Mode = "auto",
    num_samples: int = 16,
    scheduler: str | None = "asha",
    searcher: str = "random",
    resources: Mapping[str, float] | None = None,
    seed: int | None = None,
    storage_path: str | Path = "searches",
    name: str | None = None,
    *,
    resume: bool | str = False,
    evaluation: Mapping[str, Any] | None = None,
    **options: Any,
) -> SearchResult:
    """Search for options of a model and of its training, by training models on Ray Tune.

    Every name and value of the space is checked before the first trial. Trials are trained side by
    side with the same seed and split, and report their metrics after each epoch that is validated;
    those that fall behind are stopped. The best model of each is saved. Without a running Ray, one
    is started on this machine; for a cluster, call `ray.init(address=...)` first and give a folder
    that all nodes see.

    Parameters
    ----------
    model_class
        Class of the models, such as `cellvae.model.SCVI`.
    data
        Cells that were set up for it: an AnnData, a MuData, or what `open_cells` returns. They are
        in shared memory once on each node, or in their file.
    search_space
        Options of the model and keyword arguments of `train`, each a value or a domain:
        `{"n_latent": tune.choice([10, 20]), "lr": tune.loguniform(1e-4, 1e-2), "max_epochs": 50}`.
        Or in two parts, `{"model_params": {...}, "train_params": {...}}`. Domains are those of this
        module or of `ray.tune`; they may be in `plan_kwargs` too.
    metric
        Name of a metric of the history, or several, of which the first decides. `"eval/ilisi"` and
        the like are scores of :class:`~cellvae.train.IntegrationEvaluation`, `"Total"` and the like
        of :class:`~cellvae.train.ScibCallback`, for batches and labels of the set-up.
    mode
        Whether lower (`"min"`) or higher (`"max"`) is better; `"auto"` infers it from the name.
    num_samples
        Number of trials; with `tune.grid_search`, of trials for each combination.
    scheduler
        What stops trials early: `"asha"`, `"hyperband"`, `"median"`, or None (`"fifo"`).
    searcher
        What draws the options: `"random"`, or `"hyperopt"` or `"optuna"` where these are installed.
    resources
        What each trial may use; one processor, and a GPU where there is one:
        `{"cpu": 2, "gpu": 0.5}`.
    seed
        Seed of the draws and of every trial; by default `settings.seed`, else a random one.
    storage_path, name
        Folder of searches, and name of this one in it; by default a new name by model and time.
    resume
        `"auto"` resumes the search of this name if there is one: finished trials stay, those
        that were running continue with their next epoch.
    evaluation
        Arguments of the callbacks that log scores of integration: `every_n_epochs` (5), `n_cells`
        (5,000), `indices`.
    **options
        `scheduler_kwargs`, `searcher_kwargs`: further arguments of these classes of Ray, such as
        `{"grace_period": 5}`. `max_concurrent_trials`, `time_budget` (seconds), `progress`.

    Returns
    -------
    SearchResult
        Table of trials, their metrics by epoch, the best options and the best model.

    Raises
    ------
    UnknownOptionError
        If a name in the space or an argument is misspelt; before any trial.
    InvalidOptionError
        If a value in the space does not fit, or nothing measures the metric; before any trial.
    NotSetUpError
        If the cells were not set up.
    ResumeError
        If the search to resume had another space, metric or seed.
    TrainingError
        If all trials failed.
    ImportError
        If Ray is not installed.

    Examples
    --------
    >>> from cellvae import tune
    >>> space = {"n_latent": tune.choice([10, 20]), "lr": tune.loguniform(1e-4, 1e-2)}
    >>> tune.run(SCVI, adata, space, num_samples=16, seed=0)  # doctest: +SKIP
    """
    from cellvae.train.options.default_epochs import default_epochs
    from cellvae.train.options.metric_names import metric_mode

    given = {"num_samples": num_samples, "scheduler": scheduler, "searcher": searcher, **options}
    if resources is not None:
        given["resources"] = resources
    search_options = from_kwargs(SearchOptions, given, "tune.run()")
    if resume not in (True, False, None, "auto"):
        raise InvalidOptionError(f"Expected resume to be 'auto' or False; got {resume!r}.")
    metrics = search_metric_names(metric)
    import_ray()
    if seed is None:
        seed = settings.seed if settings.seed is not None else draw_seed()
    space, callbacks, model = check_search(
        model_class, data, search_space, metrics, {"seed": seed, **(evaluation or {})}
    )
    folder = search_folder(model_class, storage_path, name, resume=bool(resume))
    fixed, varying = split_params({MODEL: space.model_params, TRAIN: space.train_params})
    if not varying:
        raise InvalidOptionError(
            "Expected one or more options in search_space with several values, such as "
            "tune.choice([10, 20]); got one value for each."
        )
    task = TrialTask(
        model_class=model_class,
        metrics=metrics,
        mode=metric_mode(metrics[0], mode),
        seed=seed,
        n_threads=search_options.n_threads(),
        folder=folder / "trials",
        fixed=fixed,
        callbacks=callbacks,
    )
    record = {
        "model": model_class.__name__,
        "space": describe_space(space),
        "metrics": [*metrics],
        "mode": task.mode,
        "seed": seed,
        "num_samples": num_samples,
        "n_cells": len(data.obs_names),
    }
    going_on = write_record(folder, record)
    max_epochs = space.max_epochs() or default_epochs(len(data.obs_names))
    results = run_trials(
        task,
        SharedCells.of(data, model_class, folder),
        varying,
        search_options,
        max_epochs=max_epochs,
        folder=folder,
        resume=going_on,
    )
    return collect_result(results, task, folder, data)


def check_search(
    model_class: type[Model],
    data: Any,
    search_space: Any,
    metrics: Sequence[str],
    evaluation: Mapping[str, Any],
) -> tuple[SearchSpace, tuple[Any, ...], Model]:
    """Space and callbacks of a search, and a model of its cells, all of them checked.

    Raises
    ------
    UnknownOptionError, InvalidOptionError, NotSetUpError
        As for :func:`run`.
    """
    from cellvae.estimator.model import Model
    from cellvae.train.options.callback_kwargs import callbacks_from_mapping
    from cellvae.train.options.train_kwargs import train_kwarg_names

    if not (isinstance(model_class, type) and issubclass(model_class, Model)):
        raise InvalidOptionError(
            f"Expected the class of a model, such as cellvae.model.SCVI; got {model_class!r:.100}."
        )
    learns_labels = "n_labelled" in getattr(model_class.Batch, "_fields", ())
    names = sorted(train_kwarg_names(learns_labels=learns_labels))
    space = SearchSpace.of(search_space, model_class, names)
    for own in OWN_TRAIN_PARAMS:
        if own in space.train_params:
            raise InvalidOptionError(
                f"Expected no '{own}' in the search space: each trial has the folder and the seed "
                f"that the search gives it. Give {'seed' if own == 'seed' else 'storage_path'} to "
                "tune.run()."
            )
    if is_domain(space.train_params.get("callbacks")):
        raise InvalidOptionError("Expected callbacks to be the same for all trials.")
    model = model_class(data, **space.checked_model_params(model_class))
    space.check(model)
    callbacks, _ = callbacks_from_mapping(space.train_params.get("callbacks"))
    scores = score_callbacks(metrics, model, callbacks, **evaluation)
    check_metrics(metrics, model, space.train_params, scores)
    return space, scores, model


def search_folder(
    model_class: type[Model], storage_path: str | Path, name: str | None, *, resume: bool
) -> Path:
    """Folder of a search.

    Raises
    ------
    InvalidOptionError
        If another search is there, or a name is needed to resume.
    """
    parent = check_output_folder(storage_path, "storage_path").resolve()
    if name is None:
        if resume:
            raise InvalidOptionError(
                "Expected the name of the search to resume; got none. Give name=..., from the "
                "first call on."
            )
        name = f"{model_class.__name__}-{datetime.datetime.now():%Y-%m-%d-%H-%M-%S-%f}"
    folder = check_output_folder(parent / name, "name")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise InvalidOptionError(
            f"Expected a name that no search has; {folder} is not empty. Give resume='auto' to go "
            "on with that search, or another name."
        )
    return folder


def write_record(folder: Path, record: dict[str, Any]) -> bool:
    """Write what a search is, or compare it with what is there; returns whether it resumes.

    Raises
    ------
    ResumeError
        If another search is in the folder.
    """
    path = folder / RECORD_OF_SEARCH
    if path.exists():
        before = json.loads(path.read_text())
        old, new = (flat_params(one) for one in (before, json.loads(json.dumps(record))))
        differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if differing:
            parts = [f"{key}: {old.get(key)!r} then, {new.get(key)!r} now" for key in differing]
            raise ResumeError(
                f"Expected the search that is in {folder}; {'; '.join(parts)}. Give the same "
                "arguments, or another name."
            )
        return True
    folder.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    return False


def collect_result(results: Any, task: TrialTask, folder: Path, data: Any) -> SearchResult:
    """Result from what Ray returned; the states of trials, which are over, are deleted."""
    trials = finished_trials(results, task.metrics)
    table = table_of_trials(trials, task.metrics[0], task.mode, folder)
    for trial in trials:
        shutil.rmtree(folder / "trials" / trial.name / STATE, ignore_errors=True)
    return SearchResult(
        table=table,
        history=history_of_trials(trials),
        configs={trial.name: merge_params(task.fixed, trial.config) for trial in trials},
        metric=task.metrics[0],
        mode=task.mode,
        folder=folder,
        model_class=task.model_class,
        adata=data,
        result_grid=results,
    )

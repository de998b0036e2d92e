"""One job: set up, train, save, draw; what `cellvae train` and `cellvae demo` do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellvae.cli.checks import check_colors, check_setup, model_class
from cellvae.cli.record import JOB_FILE, JobRecord, describe_data, read_record, through_json
from cellvae.cli.results import CHECKPOINT_FOLDER, MODEL_FOLDER, STATE_FOLDER, write_results
from cellvae.core.log import logger
from cellvae.errors import InvalidOptionError, TrainingError

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.model import Model

STATE_INTERVAL_MINUTES = 0.1
"""Minutes between two saved states of a run: what is lost if it is killed."""
FINISHED_STATUSES = ("completed", "stopped_early", "time_limit", "not_finite")
"""Statuses of a finished run; a run with another status can be resumed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done with the cells of one AnnData.

    Parameters
    ----------
    model
        Name of the model.
    setup, config, train
        Keywords of `setup_anndata`, of the model and of `train`.
    colors
        Columns of `adata.obs` that the UMAP is coloured by.
    umap
        Whether a UMAP is drawn.
    resume
        Whether the state of the run is kept on disk, and a run that was cut off is continued.
    seed
        Seed of weights, split and noise.
    """

    model: str = "SCVI"
    setup: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    colors: Sequence[str] = ()
    umap: bool = True
    resume: bool = True
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """What the results depend on, as values for a file."""
        names = ("model", "seed", "setup", "config", "train")
        options: dict[str, Any] = through_json({name: getattr(self, name) for name in names})
        return options

    @property
    def strata(self) -> list[str]:
        """Columns whose shares a part of the cells has: labels, then batches."""
        columns = [self.setup.get(name) for name in ("labels_key", "batch_key")]
        return list(dict.fromkeys(column for column in columns if column is not None))


def check_output_folder(out: Path, job: Job, *, overwrite: bool) -> JobRecord | None:
    """Check that results may be written, before the cells are read.

    Returns
    -------
    Record of a job with the same options that can be finished; None for a new one.

    Raises
    ------
    InvalidOptionError
        If there are results of another job that must not be replaced.
    FileFormatError
        If the record of the earlier job cannot be read.
    """
    if out.exists() and not out.is_dir():
        raise InvalidOptionError(f"Expected a folder for --out; '{out}' is a file.")
    if overwrite:
        return None
    earlier = read_record(out)
    if earlier is None:
        check_no_model(out, f"there is no {JOB_FILE} that says how it was made")
        return None
    if not earlier.written and not has_state(out):
        check_no_model(out, "its training was not finished")
        return None
    JobRecord(out, job.options, earlier.data).check_same(earlier)
    return earlier


def check_no_model(out: Path, reason: str) -> None:
    """Check that a folder holds no model.

    Raises
    ------
    InvalidOptionError
        If it does.
    """
    if (out / MODEL_FOLDER).exists():
        raise InvalidOptionError(
            f"'{out}' holds a model already, and {reason}. Give --overwrite, or another --out."
        )


def has_state(out: Path) -> bool:
    """Whether a run that was cut off left a state."""
    return any((out / STATE_FOLDER).glob("*"))


def run_job(adata: AnnData, job: Job, out: Path, *, overwrite: bool = False) -> Model:
    """Train a model and write model, latent, report, curves and UMAP into a folder.

    What an earlier call with the same options and data has written is not made again, and a run
    that was cut off is continued.

    Parameters
    ----------
    adata
        The cells.
    job
        What is to be done.
    out
        Folder for the results.
    overwrite
        Whether results that are there are replaced.

    Returns
    -------
    The trained model.

    Raises
    ------
    InvalidOptionError, UnknownOptionError, UnknownKeyError
        If an option or column cannot be, before anything is trained.
    TrainingError
        If training gave no model.
    """
    from cellvae.settings import settings

    earlier = check_output_folder(out, job, overwrite=overwrite)
    kind = model_class(job.model)
    settings.seed = job.seed
    check_setup(kind, job.setup)
    kind.setup_anndata(adata, **job.setup)
    check_colors(job.colors, adata)
    record = JobRecord(out, job.options, describe_data(adata, job.setup))
    if earlier is not None:
        record.check_same(earlier)
        record.written = earlier.written
    if record.has(MODEL_FOLDER):
        logger.info("'%s' holds the trained model: what else is missing is written.", out)
        model: Any = kind.load(out / MODEL_FOLDER, adata)
    else:
        record.written = {}
        model = train_model(kind, adata, job, record, resume=earlier is not None and job.resume)
    write_results(
        model,
        adata,
        record,
        colors=job.colors,
        strata=job.strata,
        umap=job.umap,
        seed=job.seed,
    )
    if model.training_report.status not in FINISHED_STATUSES:
        # The same command resumes training, and writes all results again.
        record.written = {}
        record.save()
    return model


def train_model(kind: Any, adata: AnnData, job: Job, record: JobRecord, *, resume: bool) -> Any:
    """Train a model and save it.

    Parameters
    ----------
    kind
        Class of the model.
    adata
        Its cells, set up.
    job
        What is to be done.
    record
        Record of the job.
    resume
        Whether a run that was cut off is continued.
    """
    out = record.out
    model = kind(adata, **job.config)
    words = {**job.train, "callbacks": job_callbacks(job, out)}
    model.parse_train_kwargs(words)
    out.mkdir(parents=True, exist_ok=True)
    record.save()
    if resume and has_state(out):
        logger.info("Continuing the run in '%s' that was cut off.", out)
        words["resume"] = "auto"
    else:
        shutil.rmtree(out / STATE_FOLDER, ignore_errors=True)
    model.train(**words)
    if not model.is_trained:
        raise TrainingError(model.training_report.reason)
    model.save(out / MODEL_FOLDER, overwrite=True)
    record.add(MODEL_FOLDER)
    if model.training_report.status in FINISHED_STATUSES:
        shutil.rmtree(out / STATE_FOLDER, ignore_errors=True)
    return model


def job_callbacks(job: Job, out: Path) -> list[Any]:
    """Callbacks that keep the state of a run, and its best model where one is looked for."""
    from cellvae.train import SaveCheckpoint, TrainingCheckpoint

    callbacks: list[Any] = []
    if job.resume:
        callbacks.append(
            TrainingCheckpoint(
                out / STATE_FOLDER,
                every_n_minutes=STATE_INTERVAL_MINUTES,
                # It goes when the model is saved.
                delete_on_success=False,
            )
        )
    words = job.train
    stops = words.get("early_stopping", any(word.startswith("early_stopping_") for word in words))
    asked = words.get("enable_checkpointing", "checkpointing_monitor" in words)
    if stops or asked:
        monitor = words.get("checkpointing_monitor", words.get("early_stopping_monitor"))
        first = monitor[0] if isinstance(monitor, list) else monitor
        callbacks.append(
            SaveCheckpoint(out / CHECKPOINT_FOLDER, monitor=first or "elbo_validation")
        )
    return callbacks

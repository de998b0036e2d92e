"""One job of `cellvae train` and `cellvae demo`: set up, train, save, plot."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellvae.cli.cells import describe_data, set_up, setup_name
from cellvae.cli.checks import check_colors, check_setup, model_class
from cellvae.cli.doublets import (
    ENCODER_FOLDER,
    EPOCHS_OPTION,
    RATE_OPTION,
    check_encoder_epochs,
    check_expected_rate,
    class_of_cells,
    make_detector,
)
from cellvae.cli.record import JOB_FILE, JobRecord, read_record, through_json
from cellvae.cli.results import (
    CHECKPOINT_FOLDER,
    MODEL_FOLDER,
    STATE_FOLDER,
    add_results,
    write_results,
)
from cellvae.core.log import logger
from cellvae.core.platform.launcher import process_rank
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.train.options.default_epochs import default_epochs
from cellvae.train.options.process_count import count_processes

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.model import Model

STATE_INTERVAL_MINUTES = 0.1
"""Minutes between two saved states of a run: what is lost if it is killed."""
FINISHED_STATUSES = ("completed", "stopped_early", "time_limit", "not_finite")
"""Statuses of a finished run; a run with another status can be resumed."""


DEFAULT_MODEL = "SCVI"
"""Name of the model that is trained where none is named."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Model, options and plots for the cells of one AnnData.

    Parameters
    ----------
    model
        Name of the model.
    setup, config, train
        Keyword arguments of `setup_anndata`, of the model and of `train`.
    colors
        Columns of `adata.obs` that the UMAP is coloured by.
    umap
        Whether a UMAP is drawn.
    resume
        Whether the state of the run is saved, and an interrupted run is resumed.
    seed
        Seed of weights, split and noise.
    expected_rate
        Fraction of doublets, or one for each batch, if the model calls them; None to estimate it.
    scvi_max_epochs
        Epochs of the SCVI whose latent is read, if the model reads one; None for its default.
    """

    model: str = DEFAULT_MODEL
    setup: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    colors: Sequence[str] = ()
    umap: bool = True
    resume: bool = True
    seed: int = 0
    expected_rate: float | Mapping[str, float] | None = None
    scvi_max_epochs: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options that the results depend on, as JSON values."""
        names = ("model", "seed", "setup", "config", "train")
        values = {name: getattr(self, name) for name in names}
        if self.expected_rate is not None:
            values[RATE_OPTION] = self.expected_rate
        if self.scvi_max_epochs is not None:
            values[EPOCHS_OPTION] = self.scvi_max_epochs
        options: dict[str, Any] = through_json(values)
        return options

    @property
    def n_processes(self) -> int:
        """Number of processes that train the model."""
        return count_processes(self.train.get("devices", "auto"), self.train.get("num_nodes", 1))

    @property
    def strata(self) -> list[str]:
        """Columns that stratify the cells of the UMAP: labels, then batches."""
        columns = [self.setup.get(name) for name in ("labels_key", "batch_key")]
        return list(dict.fromkeys(column for column in columns if column is not None))


def check_output_folder(out: Path, job: Job, *, overwrite: bool) -> JobRecord | None:
    """Check that results may be written, before the cells are read.

    Returns
    -------
    Record of an earlier job with the same options that can be finished; None for a new job.

    Raises
    ------
    InvalidOptionError
        If there are results of another job.
    FileFormatError
        If the record of the earlier job is invalid.
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
    """Check that a folder contains no model.

    Raises
    ------
    InvalidOptionError
        If it does.
    """
    if (out / MODEL_FOLDER).exists():
        raise InvalidOptionError(
            f"'{out}' already contains a model, and {reason}. Give --overwrite, or another --out."
        )


def has_state(out: Path) -> bool:
    """Whether an interrupted run saved its state."""
    return any((out / STATE_FOLDER).glob("*"))


def run_job(adata: AnnData, job: Job, out: Path, *, overwrite: bool = False) -> Model:
    """Train a model and write model, latent, report, curves and UMAP into a folder.

    Results of an earlier call with the same options and data are not computed again, and an
    interrupted run is resumed. Of several processes that train one model, each computes the results
    of a part of the cells, and the first writes.

    Parameters
    ----------
    adata
        The cells.
    job
        Model and options.
    out
        Folder for the results.
    overwrite
        Whether existing results are replaced.

    Returns
    -------
    The trained model.

    Raises
    ------
    InvalidOptionError, UnknownOptionError, UnknownKeyError
        If an option or column is invalid, before anything is trained.
    TrainingError
        If training failed.
    """
    from cellvae.core.seeds import isolated_rng
    from cellvae.inference.sharing.share_cells import share_between_processes

    cls, record, earlier = prepare_job(adata, job, out, overwrite=overwrite)
    latent = None
    if record.has(MODEL_FOLDER):
        logger.info("'%s' contains the trained model: only missing results are written.", out)
        # A model of the latent of another has features of its own, saved with it.
        model: Any = cls.load(out / MODEL_FOLDER, None if cls.encoder_class else adata)
    else:
        record.written = {k: v for k, v in record.written.items() if k == ENCODER_FOLDER}
        model = train_model(cls, adata, job, record, resume=earlier is not None and job.resume)
        with isolated_rng(job.seed, "results"), share_between_processes(job.n_processes > 1):
            latent = add_results(model, adata, record)
    if process_rank() > 0:
        return model
    write_results(
        model,
        adata,
        record,
        colors=job.colors,
        strata=job.strata,
        umap=job.umap,
        seed=job.seed,
        latent=latent,
    )
    if model.training_report.status not in FINISHED_STATUSES:
        # The same command resumes training and writes all results again.
        record.written = {}
        record.save()
    return model


def prepare_job(
    adata: AnnData, job: Job, out: Path, *, overwrite: bool
) -> tuple[Any, JobRecord, JobRecord | None]:
    """Check a job and set up its cells; nothing is written.

    Returns
    -------
    Class of the model, record of the job, and that of an earlier job that it finishes, if any.

    Raises
    ------
    InvalidOptionError, UnknownOptionError, UnknownKeyError
        If an option or column is invalid.
    """
    from cellvae.data.files.h5mu import cell_file_name
    from cellvae.settings import settings

    earlier = check_output_folder(out, job, overwrite=overwrite)
    cls = model_class(job.model)
    settings.seed = job.seed
    cells_of = class_of_cells(cls)
    check_setup(cells_of, job.setup, setup_name(cells_of, Path(cell_file_name(adata)).suffix))
    set_up(cells_of, adata, job.setup)
    check_colors(job.colors, adata)
    check_expected_rate(job.expected_rate, adata, job.setup.get("batch_key"))
    check_encoder_epochs(job.scvi_max_epochs)
    record = JobRecord(out, job.options, describe_data(adata, job.setup))
    if earlier is not None:
        record.check_same(earlier)
        record.written = earlier.written
    return cls, record, earlier


def dry_run(adata: AnnData, job: Job, out: Path, *, overwrite: bool = False) -> str:
    """Make all checks of a job, train and write nothing, and say what the job would do.

    Raises
    ------
    InvalidOptionError, UnknownOptionError, UnknownKeyError
        If an option or column is invalid.
    """
    cls, record, earlier = prepare_job(adata, job, out, overwrite=overwrite)
    epochs = job.train.get("max_epochs")
    if cls.encoder_class is None:
        kwargs = {**job.train, "callbacks": job_callbacks(job, out)}
        epochs = cls(adata, **job.config).parse_train_kwargs(kwargs).options.max_epochs
    what = f"train {job.model} for {epochs or default_epochs(adata.n_obs)} epochs at most"
    if record.has(MODEL_FOLDER):
        what = "write the missing results of a trained model"
    elif earlier is not None and job.resume and has_state(out):
        what = f"resume the interrupted run, and {what}"
    processes = job.n_processes
    return (
        f"{adata.n_obs:,} cells x {adata.n_vars:,} features, {processes} "
        f"process{'' if processes == 1 else 'es'}: this would {what}, in '{out}'. Nothing was "
        "trained or written."
    )


def train_model(cls: Any, adata: AnnData, job: Job, record: JobRecord, *, resume: bool) -> Any:
    """Train a model and save it.

    Parameters
    ----------
    cls
        Class of the model.
    adata
        Its cells, after setup.
    job
        Model and options.
    record
        Record of the job.
    resume
        Whether an interrupted run is resumed.
    """
    out = record.out
    if cls.encoder_class is None:
        model = cls(adata, **job.config)
    else:
        epochs = job.scvi_max_epochs
        model = make_detector(cls, adata, job.config, job.train, record, epochs)
    kwargs = {**job.train, "callbacks": job_callbacks(job, out)}
    model.parse_train_kwargs(kwargs)
    first = process_rank() == 0
    out.mkdir(parents=True, exist_ok=True)
    if resume and has_state(out):
        logger.info("Resuming the interrupted run in '%s'.", out)
        kwargs["resume"] = "auto"
    elif first:
        # Before the record is there, by which another process would resume that state.
        shutil.rmtree(out / STATE_FOLDER, ignore_errors=True)
    record.save()
    model.train(**kwargs)
    if not model.is_trained:
        raise TrainingError(model.training_report.reason)
    if not first:
        return model
    model.save(out / MODEL_FOLDER, overwrite=True, save_anndata=cls.encoder_class is not None)
    record.add(MODEL_FOLDER)
    if model.training_report.status in FINISHED_STATUSES:
        shutil.rmtree(out / STATE_FOLDER, ignore_errors=True)
    return model


def job_callbacks(job: Job, out: Path) -> list[Any]:
    """Callbacks that save the state of a run, and its best model if the options monitor one."""
    from cellvae.train import SaveCheckpoint, TrainingCheckpoint

    callbacks: list[Any] = []
    if job.resume:
        callbacks.append(
            TrainingCheckpoint(
                out / STATE_FOLDER,
                every_n_minutes=STATE_INTERVAL_MINUTES,
                # It is deleted when the model is saved.
                delete_on_success=False,
            )
        )
    kwargs = job.train
    stops = kwargs.get("early_stopping", any(name.startswith("early_stopping_") for name in kwargs))
    saves_best = kwargs.get("enable_checkpointing", "checkpointing_monitor" in kwargs)
    if stops or saves_best:
        monitor = kwargs.get("checkpointing_monitor", kwargs.get("early_stopping_monitor"))
        first = monitor[0] if isinstance(monitor, list) else monitor
        callbacks.append(
            SaveCheckpoint(out / CHECKPOINT_FOLDER, monitor=first or "elbo_validation")
        )
    return callbacks

"""A folder with the messages, options, callbacks and history of a run."""

from __future__ import annotations

import datetime
import json
import logging
import platform
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl

from cellvae.core.files.output_files import check_output_folder, replace_atomically
from cellvae.core.log import logger
from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.train.callbacks.protocols import Group
from cellvae.train.callbacks.serialisation import describe_callback
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.version import __version__

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LIBRARIES = ("torch", "lightning", "anndata", "numpy")


class RunLogger(pl.Callback):
    """Writes what a run says and is made of into a folder; part of `train(run_dir=...)`.

    The folder gets `info.log`, `warning.log`, `error.log` (with the traceback of what ended the
    run), `config.json`, `callbacks.json`, `model.txt`, `history.csv` and `report.txt`. A resumed
    run appends to the messages that are there.

    Parameters
    ----------
    run_dir
        The folder; by default a new one under `runs/` of the trainer's root.
    level
        Least level of the messages in `info.log`.

    Raises
    ------
    InvalidOptionError
        If there is no such level.
    """

    group: ClassVar[Group] = Group.RECORDER

    @check_arguments()
    def __init__(self, run_dir: str | Path | None = None, level: str = "INFO") -> None:
        super().__init__()
        levels = logging.getLevelNamesMapping()
        if level not in levels:
            raise InvalidOptionError(
                f"Expected level to be one of {', '.join(levels)}; got {level!r}."
                f"{did_you_mean(str(level), levels)}"
            )
        self.run_dir = None if run_dir is None else check_output_folder(run_dir, "run_dir")
        self.level = level
        self.folder: Path | None = None
        self.handlers: list[logging.Handler] = []
        self.start_time = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the folder, and add handlers to the logger of the package."""
        self.close()
        self.start_time = time.monotonic()
        self.folder = None
        if not trainer.is_global_zero:
            return
        self.folder = self.run_dir or make_run_folder(Path(trainer.default_root_dir) / "runs")
        self.folder.mkdir(parents=True, exist_ok=True)
        levels = logging.getLevelNamesMapping()
        for name, level in (
            ("info", levels[self.level]),
            ("warning", logging.WARNING),
            ("error", logging.ERROR),
        ):
            handler = logging.FileHandler(
                self.folder / f"{name}.log", encoding="utf-8", delay=name != "info"
            )
            handler.setLevel(level)
            handler.setFormatter(logging.Formatter(LOG_FORMAT))
            logger.addHandler(handler)
            self.handlers.append(handler)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what the run is made of."""
        if self.folder is None:
            return
        versions = {name: metadata.version(name) for name in LIBRARIES}
        config: dict[str, Any] = {
            "cellvae": __version__,
            "python": platform.python_version(),
            "versions": versions,
        }
        module: Any = pl_module
        if isinstance(pl_module, TrainingPlan):
            config |= {"run": pl_module.run.run_id, "options": pl_module.run.config}
            config["model"] = {k: v for k, v in pl_module.run.identity.items() if k != "genes"}
            module = pl_module.module
        write_text(self.folder / "config.json", to_json_text(config))
        made = [describe_callback(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        write_text(self.folder / "callbacks.json", to_json_text(made))
        n = sum(p.numel() for p in module.parameters())
        write_text(self.folder / "model.txt", f"{module!r}\n\n{n:,} parameters\n")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the start of training."""
        epoch = pl_module.epoch if isinstance(pl_module, TrainingPlan) else trainer.current_epoch
        self.log_to_folder(
            "Training was resumed" if trainer.current_epoch else "Training began", epoch
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the end of an epoch."""
        epoch = pl_module.epoch if isinstance(pl_module, TrainingPlan) else trainer.current_epoch
        self.log_to_folder("Completed", epoch)

    def log_to_folder(self, what: str, epoch: int) -> None:
        """Write a message to the folder alone, not to the screen."""
        record = logger.makeRecord(
            logger.name, logging.INFO, __file__, 0, "%s: epoch %d", (what, epoch), None
        )
        for handler in self.handlers:
            if record.levelno >= handler.level:
                handler.handle(record)

    def on_stop(self, trainer: pl.Trainer, plan: TrainingPlan, reason: str) -> None:
        """Write history and report, and log how long the run took."""
        if self.folder is None:
            return
        try:
            plan.history.to_csv(self.folder / "history.csv")
            write_text(
                self.folder / "report.txt", f"{plan.run.status}\n{plan.run.report or reason}\n"
            )
            took = format_duration(time.monotonic() - self.start_time)
            logger.info("Training ended: %s. It took %s.", reason, took)
        finally:
            self.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write the traceback of what ends the run."""
        if self.folder is None or not self.handlers:
            return
        lines = "".join(traceback.format_exception(exception))
        record = logger.makeRecord(
            logger.name, logging.ERROR, __file__, 0, "Training failed.\n%s", (lines,), None
        )
        for handler in self.handlers:
            handler.handle(record)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the files, unless `on_stop` is still to come, as in `model.train`."""
        if not isinstance(pl_module, TrainingPlan) or not pl_module.blocks:
            self.close()

    def close(self) -> None:
        """Remove the handlers, and close their files."""
        for handler in self.handlers:
            logger.removeHandler(handler)
            handler.close()
        self.handlers = []


def format_duration(seconds: float) -> str:
    """Duration as a string, such as `3 min 38 s`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    while not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{n} {unit}" for n, unit in parts)


def make_run_folder(parent: Path) -> Path:
    """Folder under a parent that no other run has, named by the time."""
    stem = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
    names = (stem, *(f"{stem}_{i}" for i in range(2, 1000)))
    return next(parent / name for name in names if not (parent / name).exists())


def to_json_text(values: Any) -> str:
    """Values as text, those that JSON cannot hold by their own text."""
    return json.dumps(values, indent=2, default=str) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file, or replace it, atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

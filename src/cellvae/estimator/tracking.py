"""Artifacts of a run in an experiment tracker: the report page and the best model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellvae.core.log import logger as messages
from cellvae.train.records.artifacts import as_loggers, has_artifacts, log_path

if TYPE_CHECKING:
    from cellvae.estimator.base_model import BaseModel

REPORT_FILE = "report.html"
MODEL_FOLDER = "model"


def log_artifacts(model: Any, logger: Any) -> None:
    """Log the report page, and the model if the logger was made with `log_model`, as artifacts.

    Of the loggers of Lightning those of MLflow and Weights & Biases have artifacts; others are left
    alone. What cannot be written or sent is a warning in the log of the package: the model is
    trained, and stays.

    Parameters
    ----------
    model
        Trained model, with the weights that the run ended with.
    logger
        What `train` was given: a logger of Lightning, several, or True or False.
    """
    from cellvae.train.lightning_adapter import logs_model

    trackers = [each for each in as_loggers(logger) if has_artifacts(each)]
    if not trackers:
        return
    with tempfile.TemporaryDirectory() as folder:
        page, saved = Path(folder) / REPORT_FILE, Path(folder) / MODEL_FOLDER
        written = [attempt("The report page", partial(write_page, model, page))]
        if any(logs_model(tracker) for tracker in trackers):
            written.append(attempt("The model", partial(model.save, saved)))
        for tracker in trackers:
            paths = [page, saved] if logs_model(tracker) else [page]
            for path, complete in zip(paths, written, strict=False):
                if complete:
                    attempt(f"'{path.name}'", partial(log_path, tracker, path))


def write_page(model: BaseModel, path: Path) -> None:
    """Write the report page of a model."""
    from cellvae.estimator.reporting.run_report import write_report

    write_report(model, path, silent=True)


def attempt(what: str, do: Callable[[], Any]) -> bool:
    """Do something whose failure is a warning; return whether it succeeded."""
    try:
        do()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        messages.warning("%s could not be logged as an artifact (%s).", what, reason)
        return False
    return True

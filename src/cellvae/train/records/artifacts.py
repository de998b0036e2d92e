"""Files that experiment trackers store with the metrics of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def as_loggers(logger: Any) -> Sequence[Any]:
    """Loggers that were given to `train`, as a list."""
    if logger is None or isinstance(logger, bool):
        return []
    return list(logger) if isinstance(logger, list | tuple) else [logger]


def has_artifacts(logger: Any) -> bool:
    """Whether a logger stores files with its metrics."""
    from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

    return isinstance(logger, MLFlowLogger | WandbLogger)


def log_path(logger: Any, path: Path) -> None:
    """Log a file or folder as an artifact."""
    from lightning.pytorch.loggers import WandbLogger

    (log_to_wandb if isinstance(logger, WandbLogger) else log_to_mlflow)(logger, path)


def log_to_mlflow(logger: Any, path: Path) -> None:
    """Log a file or folder to the run of MLflow."""
    if path.is_dir():
        logger.experiment.log_artifacts(logger.run_id, str(path), path.name)
    else:
        logger.experiment.log_artifact(logger.run_id, str(path))


def log_to_wandb(logger: Any, path: Path) -> None:
    """Log a file or folder to the run of Weights & Biases, as an artifact named by run and path."""
    name, kind = f"{path.stem}-{logger.experiment.id}", "model" if path.is_dir() else "report"
    # Its files are copied now, and sent in the background.
    logger.experiment.log_artifact(str(path), name=name, type=kind)

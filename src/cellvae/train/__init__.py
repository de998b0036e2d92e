"""Training: options, the recipe, callbacks. Lightning is loaded when the first of these is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellvae.errors import StopTraining
    from cellvae.train.callbacks import (
        EarlyStopping,
        EpochBar,
        LoudEarlyStopping,
        NaNGuard,
        RecordLearningRate,
        SaveCheckpoint,
        TrainingCheckpoint,
    )
    from cellvae.train.history import History
    from cellvae.train.plan import Plan
    from cellvae.train.report import TrainingReport

__all__ = [
    "EarlyStopping",
    "EpochBar",
    "History",
    "LoudEarlyStopping",
    "NaNGuard",
    "Plan",
    "RecordLearningRate",
    "SaveCheckpoint",
    "StopTraining",
    "TrainingCheckpoint",
    "TrainingReport",
]

WHERE = {
    "History": "cellvae.train.history",
    "Plan": "cellvae.train.plan",
    "StopTraining": "cellvae.errors",
    "TrainingReport": "cellvae.train.report",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cellvae.train' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(WHERE.get(name, "cellvae.train.callbacks")), name)


def __dir__() -> list[str]:
    return sorted(__all__)

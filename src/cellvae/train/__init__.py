"""Training: options, the recipe, callbacks. Lightning is loaded when the first of these is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellvae.errors import StopTraining
    from cellvae.train.averaging import interpolate_with
    from cellvae.train.callbacks import (
        EMA,
        EarlyStopping,
        EpochBar,
        Freeze,
        GradNormMonitor,
        Group,
        IntegrationEvaluation,
        LoudEarlyStopping,
        LRMonitor,
        LRSchedulerCallback,
        MetricCallback,
        NaNGuard,
        PredictionWriter,
        PrintMetrics,
        RecordLearningRate,
        ResourceMonitor,
        RetrievalEvaluation,
        RunLogger,
        SaveCheckpoint,
        Stage,
        Stages,
        StopReason,
        Summary,
        TrainingCheckpoint,
    )
    from cellvae.train.history import History
    from cellvae.train.learning_rate_search import LearningRateSearch
    from cellvae.train.plan import Plan
    from cellvae.train.report import TrainingReport

__all__ = [
    "EMA",
    "EarlyStopping",
    "EpochBar",
    "Freeze",
    "GradNormMonitor",
    "Group",
    "History",
    "IntegrationEvaluation",
    "LRMonitor",
    "LRSchedulerCallback",
    "LearningRateSearch",
    "LoudEarlyStopping",
    "MetricCallback",
    "NaNGuard",
    "Plan",
    "PredictionWriter",
    "PrintMetrics",
    "RecordLearningRate",
    "ResourceMonitor",
    "RetrievalEvaluation",
    "RunLogger",
    "SaveCheckpoint",
    "Stage",
    "Stages",
    "StopReason",
    "StopTraining",
    "Summary",
    "TrainingCheckpoint",
    "TrainingReport",
    "interpolate_with",
]

WHERE = {
    "History": "cellvae.train.history",
    "LearningRateSearch": "cellvae.train.learning_rate_search",
    "Plan": "cellvae.train.plan",
    "StopTraining": "cellvae.errors",
    "TrainingReport": "cellvae.train.report",
    "interpolate_with": "cellvae.train.averaging",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cellvae.train' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(WHERE.get(name, "cellvae.train.callbacks")), name)


def __dir__() -> list[str]:
    return sorted(__all__)

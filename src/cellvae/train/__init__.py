"""Training: options, the recipe, callbacks. Lightning is loaded when the first of these is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellvae.errors import missing_name_error

if TYPE_CHECKING:
    from cellvae.errors import StopTraining
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
        ScibCallback,
        Stage,
        Stages,
        StopReason,
        Summary,
        TrainingCheckpoint,
    )
    from cellvae.train.loop.weight_averaging import interpolate_with
    from cellvae.train.options.train_options import (
        PyroTrainingPlanConfig,
        SemiSupervisedTrainingPlanConfig,
        TrainerConfig,
        TrainingPlanConfig,
    )
    from cellvae.train.records.history import History
    from cellvae.train.records.training_report import TrainingReport
    from cellvae.train.search.learning_rate_search import LearningRateSearch

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
    "PredictionWriter",
    "PrintMetrics",
    "PyroTrainingPlanConfig",
    "RecordLearningRate",
    "ResourceMonitor",
    "RetrievalEvaluation",
    "RunLogger",
    "SaveCheckpoint",
    "ScibCallback",
    "SemiSupervisedTrainingPlanConfig",
    "Stage",
    "Stages",
    "StopReason",
    "StopTraining",
    "Summary",
    "TrainerConfig",
    "TrainingCheckpoint",
    "TrainingPlanConfig",
    "TrainingReport",
    "interpolate_with",
]

WHERE = {
    "PyroTrainingPlanConfig": "cellvae.train.options.train_options",
    "SemiSupervisedTrainingPlanConfig": "cellvae.train.options.train_options",
    "TrainerConfig": "cellvae.train.options.train_options",
    "TrainingPlanConfig": "cellvae.train.options.train_options",
    "History": "cellvae.train.records.history",
    "LearningRateSearch": "cellvae.train.search.learning_rate_search",
    "StopTraining": "cellvae.errors",
    "TrainingReport": "cellvae.train.records.training_report",
    "interpolate_with": "cellvae.train.loop.weight_averaging",
}


PLAN = "give model.train() plan_kwargs; one LightningModule trains every model"
DICTIONARY = "give plan_kwargs or plan_config a dictionary"
NO_JAX = "all models are of torch"
INSTEAD = {
    "Trainer": "give arguments of lightning.Trainer to model.train()",
    "TrainRunner": "call model.train()",
    "TrainingPlan": PLAN,
    "PyroTrainingPlan": PLAN,
    "LowLevelPyroTrainingPlan": PLAN,
    "SemiSupervisedTrainingPlan": PLAN,
    "AdversarialTrainingPlan": PLAN,
    "SemiSupervisedAdversarialTrainingPlan": PLAN,
    "ClassifierTrainingPlan": PLAN,
    "AdversarialTrainingPlanConfig": DICTIONARY,
    "SemiSupervisedAdversarialTrainingPlanConfig": DICTIONARY,
    "ClassifierTrainingPlanConfig": DICTIONARY,
    "LowLevelPyroTrainingPlanConfig": DICTIONARY,
    "JaxModuleInit": NO_JAX,
    "JaxTrainingPlan": NO_JAX,
    "JaxTrainingPlanConfig": NO_JAX,
    "MlxTrainingPlan": NO_JAX,
    "KwargsConfig": DICTIONARY,
    "METRIC_KEYS": "names of metrics are those of model.history",
    "merge_kwargs": "give model.train() the words themselves, which come before those of configs",
}
"""Parts of scvi-tools that are not here, and what to use in their place."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise missing_name_error("cellvae.train", name, INSTEAD, __all__)
    from importlib import import_module

    return getattr(import_module(WHERE.get(name, "cellvae.train.callbacks")), name)


def __dir__() -> list[str]:
    return sorted(__all__)

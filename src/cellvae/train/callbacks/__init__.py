"""Callbacks of a run: one file each, usable with any Lightning trainer."""

from cellvae.train.callbacks.checkpointing.save_checkpoint import SaveCheckpoint
from cellvae.train.callbacks.checkpointing.training_checkpoint import TrainingCheckpoint
from cellvae.train.callbacks.early_stopping.early_stopping import EarlyStopping, LoudEarlyStopping
from cellvae.train.callbacks.early_stopping.stopping_rule import StopReason
from cellvae.train.callbacks.ema import EMA
from cellvae.train.callbacks.evaluation.integration_evaluation import IntegrationEvaluation
from cellvae.train.callbacks.evaluation.metric_callback import MetricCallback
from cellvae.train.callbacks.evaluation.prediction_writer import PredictionWriter
from cellvae.train.callbacks.evaluation.retrieval_evaluation import RetrievalEvaluation
from cellvae.train.callbacks.evaluation.scib_callback import ScibCallback
from cellvae.train.callbacks.freeze import Freeze
from cellvae.train.callbacks.monitoring.gradient_norm import GradNormMonitor
from cellvae.train.callbacks.monitoring.lr_monitor import LRMonitor, RecordLearningRate
from cellvae.train.callbacks.monitoring.model_summary import Summary
from cellvae.train.callbacks.monitoring.print_metrics import PrintMetrics
from cellvae.train.callbacks.monitoring.progress import EpochBar
from cellvae.train.callbacks.monitoring.resource_monitor import ResourceMonitor
from cellvae.train.callbacks.monitoring.run_logger import RunLogger
from cellvae.train.callbacks.nan.nan_guard import NaNGuard
from cellvae.train.callbacks.protocols import Group
from cellvae.train.callbacks.scheduling.lr_scheduler import LRSchedulerCallback
from cellvae.train.callbacks.scheduling.stages import Stage, Stages

__all__ = [
    "EMA",
    "EarlyStopping",
    "EpochBar",
    "Freeze",
    "GradNormMonitor",
    "Group",
    "IntegrationEvaluation",
    "LRMonitor",
    "LRSchedulerCallback",
    "LoudEarlyStopping",
    "MetricCallback",
    "NaNGuard",
    "PredictionWriter",
    "PrintMetrics",
    "RecordLearningRate",
    "ResourceMonitor",
    "RetrievalEvaluation",
    "RunLogger",
    "SaveCheckpoint",
    "ScibCallback",
    "Stage",
    "Stages",
    "StopReason",
    "Summary",
    "TrainingCheckpoint",
]


def __dir__() -> list[str]:
    return sorted(__all__)

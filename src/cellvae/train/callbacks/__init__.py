"""Callbacks of a run: one file each, usable with any Lightning trainer."""

from cellvae.train.callbacks.checkpoint import SaveCheckpoint
from cellvae.train.callbacks.contract import Group
from cellvae.train.callbacks.early_stopping import EarlyStopping, LoudEarlyStopping
from cellvae.train.callbacks.ema import EMA
from cellvae.train.callbacks.freeze import Freeze
from cellvae.train.callbacks.gradient_norm import GradNormMonitor
from cellvae.train.callbacks.integration_evaluation import IntegrationEvaluation
from cellvae.train.callbacks.judge import StopReason
from cellvae.train.callbacks.learning_rate import LRMonitor, RecordLearningRate
from cellvae.train.callbacks.metric import MetricCallback
from cellvae.train.callbacks.nan_guard import NaNGuard
from cellvae.train.callbacks.prediction_writer import PredictionWriter
from cellvae.train.callbacks.print_metrics import PrintMetrics
from cellvae.train.callbacks.progress import EpochBar
from cellvae.train.callbacks.resources import ResourceMonitor
from cellvae.train.callbacks.retrieval_evaluation import RetrievalEvaluation
from cellvae.train.callbacks.run_logger import RunLogger
from cellvae.train.callbacks.schedule import LRSchedulerCallback
from cellvae.train.callbacks.scib_callback import ScibCallback
from cellvae.train.callbacks.stages import Stage, Stages
from cellvae.train.callbacks.summary import Summary
from cellvae.train.callbacks.training_checkpoint import TrainingCheckpoint

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

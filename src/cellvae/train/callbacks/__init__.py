"""Callbacks of a run: one file each, usable with any Lightning trainer."""

from cellvae.train.callbacks.checkpoint import SaveCheckpoint
from cellvae.train.callbacks.early_stopping import EarlyStopping, LoudEarlyStopping
from cellvae.train.callbacks.learning_rate import RecordLearningRate
from cellvae.train.callbacks.nan_guard import NaNGuard
from cellvae.train.callbacks.progress import EpochBar
from cellvae.train.callbacks.training_checkpoint import TrainingCheckpoint

__all__ = [
    "EarlyStopping",
    "EpochBar",
    "LoudEarlyStopping",
    "NaNGuard",
    "RecordLearningRate",
    "SaveCheckpoint",
    "TrainingCheckpoint",
]

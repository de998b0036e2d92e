"""Callbacks of a run: one file each, usable with any Lightning trainer."""

from cellvae.train.callbacks.checkpoint import SaveCheckpoint
from cellvae.train.callbacks.early_stopping import EarlyStopping, LoudEarlyStopping
from cellvae.train.callbacks.learning_rate import RecordLearningRate
from cellvae.train.callbacks.progress import EpochBar

__all__ = ["EarlyStopping", "EpochBar", "LoudEarlyStopping", "RecordLearningRate", "SaveCheckpoint"]

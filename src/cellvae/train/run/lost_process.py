"""The error of a process that waited for another one of its run."""

from __future__ import annotations

import lightning.pytorch as pl

from cellvae.errors import TrainingError

SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Timed out waiting",
    "timed out after",
    "Socket Timeout",
    "NCCL",
)
"""Parts of the messages of gloo, NCCL and torch's store about a process that does not answer."""


def explain_lost_process(error: BaseException, trainer: pl.Trainer) -> BaseException:
    """Error of a run; one that says what to do if another process does not answer."""
    if trainer.world_size == 1 or not isinstance(error, RuntimeError):
        return error
    if not any(sign in str(error) for sign in SIGNS):
        return error
    made = TrainingError(
        f"Another process of the run ended, or cannot be reached: process {trainer.global_rank} of "
        f"{trainer.world_size} got no answer. The output of the other one says why. Start all "
        "processes again; with resume='auto' the run continues after its last whole epoch."
    )
    made.__cause__ = error
    return made

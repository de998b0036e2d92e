"""A message where threads wait for processors that other programs use."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import torch

from cellvae.core.cpu_threads import choose_spin_count, cpu_threads
from cellvae.core.log import logger
from cellvae.train.callbacks.protocols import Group

SCHEDSTAT = Path("/proc/thread-self/schedstat")
"""Nanoseconds that a thread has run and has waited for a processor, on Linux."""
MIN_SECONDS = 2.0
"""Seconds of training, at the least, over which a share of waiting is computed."""
MAX_WAITING_SHARE = 0.5


class ThreadTimes(NamedTuple):
    """Seconds since some time: by the clock, of the processor, and waiting for one."""

    wall: float
    processor: float
    waiting: float


class ThreadContention(pl.Callback):
    """Logs once what to set if training waits for a processor most of the time.

    Threads of OpenMP wait for the last of them after each operation. Where another program has the
    processor of one, the others spin meanwhile, and an epoch may take ten times as long.
    """

    group = Group.RECORDER

    def __init__(self) -> None:
        super().__init__()
        self.start: ThreadTimes | None = None
        self.is_reported = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the times, unless an epoch before was too short to be judged."""
        if self.start is None and not self.is_reported and pl_module.device.type == "cpu":
            self.start = read_thread_times()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the share of waiting once there are two seconds of training."""
        end = read_thread_times()
        if self.start is None or end is None or end.wall - self.start.wall < MIN_SECONDS:
            return
        spent = ThreadTimes(*(now - then for now, then in zip(end, self.start, strict=True)))
        self.start = None
        n_threads = torch.get_num_threads()
        if n_threads > 1 and spent.waiting > MAX_WAITING_SHARE * spent.wall:
            self.is_reported = True
            logger.warning("%s", describe_contention(spent, n_threads, cpu_threads.spin_is_short))


def read_thread_times() -> ThreadTimes | None:
    """Times of the calling thread; None on systems that do not count its waiting."""
    try:
        waiting = int(SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
    return ThreadTimes(time.perf_counter(), time.process_time(), waiting)


def describe_contention(spent: ThreadTimes, n_threads: int, spin_is_short: bool) -> str:
    """What happened, and what to set."""
    share = spent.waiting / spent.wall
    text = (
        f"Training waited for a processor {min(share, 1):.0%} of the time: other programs use the "
        f"processors of its {n_threads} threads. "
    )
    if not spin_is_short:
        return text + (
            "Import cellvae before torch, or set "
            f"GOMP_SPINCOUNT={choose_spin_count()} before Python starts, "
            "so that threads that wait leave their processor to others."
        )
    fewer = min(n_threads - 1, max(1, int(spent.processor / spent.wall)))
    return text + f"Use fewer: cellvae.settings.num_threads = {fewer}."

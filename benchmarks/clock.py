"""Times of every epoch of a Lightning run, and the memory that a process has needed."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback


class EpochClock(Callback):
    """Seconds of every epoch: its optimizer steps, and its validation.

    It has epoch hooks only, so that nothing is done between two steps. `train` and `train_cpu` are
    the wall time and the processor time (of all threads) from the start of an epoch to the end of
    its last step; `validation` is what the validation loop took.
    """

    def __init__(self) -> None:
        self.train: list[float] = []
        self.train_cpu: list[float] = []
        self.validation: list[float] = []
        self.started = 0.0
        self.started_cpu = 0.0
        self.validation_started = 0.0
        self.training = False

    def on_train_epoch_start(self, *_: Any) -> None:
        self.training = True
        self.started_cpu = time.process_time()
        self.started = time.perf_counter()

    def steps_done(self) -> None:
        """Note the end of the steps of an epoch, once."""
        if self.training:
            self.train.append(time.perf_counter() - self.started)
            self.train_cpu.append(time.process_time() - self.started_cpu)
            self.training = False

    def on_validation_start(self, *_: Any) -> None:
        self.steps_done()
        self.validation_started = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        self.validation.append(time.perf_counter() - self.validation_started)

    def on_train_epoch_end(self, *_: Any) -> None:
        self.steps_done()


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike ru_maxrss this does not count the process that started this one.
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)

"""Where the time and the memory of a run go, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from cellvae.core.files.output_files import replace_atomically
from cellvae.core.log import logger
from cellvae.core.options import check_arguments
from cellvae.core.platform.out_of_memory import is_out_of_memory
from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.monitoring.resource_table import (
    PHASES,
    Row,
    count_cells,
    device_name,
    format_table,
    format_text,
    rss_mib,
    with_totals,
)
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan

RESOURCE_METRICS = (
    "resources/seconds",
    "resources/cells_per_second",
    "resources/waiting_share",
    "resources/rss_mib",
)
# Seconds between two times that the table is written within a run.
WRITE_SECONDS = 10.0


class ResourceMonitor(pl.Callback):
    """Records once an epoch how long its parts took, how fast cells went by, and the memory.

    The parts are `waiting` (from the end of a batch until the cells of the next are there),
    `forward` (the training step without taking its cells), `backward`, `optimizer`,
    `validation`, and `epoch_end` (all that comes between the last step and the next epoch,
    other callbacks too). Times are those of the host: on a GPU, where work is queued, the parts
    of a step tell when it was queued. Once an epoch the device is waited for, in `optimizer`,
    so that sums and cells per second are right there too.

    Logged are `resources/seconds` (until the metrics of the epoch are read),
    `resources/cells_per_second` and `resources/waiting_share` (of its training, without validation
    and end), `resources/rss_mib` (memory of the process) and on CUDA `resources/gpu_mib` (the most
    that tensors have had so far).

    Parameters
    ----------
    path
        Table to be written, one row an epoch, with tabs; None for none. It is written about every
        ten seconds, at the end, and where an error ends the run.

    Raises
    ------
    InvalidOptionError
        If `path` is a folder.

    Examples
    --------
    >>> from cellvae.train.callbacks.monitoring.resource_monitor import ResourceMonitor
    >>> ResourceMonitor().summary
    'no epochs'
    """

    group = Group.RECORDER

    @check_arguments()
    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__()
        if path is not None and Path(path).is_dir():
            raise InvalidOptionError(
                f"Expected a file for the table; '{path}' is a folder. "
                f"Give '{Path(path) / 'resources.tsv'}'."
            )
        self.path = path
        self.clear()

    def clear(self) -> None:
        """Forget an earlier run."""
        self.rows: list[Row] = []
        self.devices: list[str] = []
        self.row: Row | None = None
        self.is_whole = False
        self.phase = PHASES[0]
        self.mark = self.data_mark = 0.0
        self.written = -WRITE_SECONDS

    @property
    def summary(self) -> str:
        """Mean ± standard deviation [epochs] of each part in seconds, and cells per second."""
        return format_text(self.complete_rows(), self.devices)

    def produced_metrics(self) -> Sequence[str]:
        """Names of what is logged on every device."""
        return RESOURCE_METRICS

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self.clear()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the device; a resumed run may have another than before."""
        device = device_name(pl_module.device)
        if self.devices[-1:] != [device]:
            self.devices.append(device)
        self.written = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the epoch before and begin the next."""
        self.close_epoch()
        if time.monotonic() - self.written > WRITE_SECONDS:
            self.write(trainer)
        epoch = pl_module.epoch if isinstance(pl_module, TrainingPlan) else trainer.current_epoch
        self.row = {"epoch": epoch, **dict.fromkeys(PHASES, 0.0), "cells": 0}
        self.phase, self.mark = "waiting", time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the wait for a batch."""
        self.switch_phase("forward")
        self.data_mark = data_loading_seconds(pl_module)
        if self.row is not None:
            self.row["cells"] += count_cells(batch) * trainer.world_size

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """End the training step; cells that were taken within it were waited for."""
        self.switch_phase("backward")
        if self.row is not None:
            loading_seconds = data_loading_seconds(pl_module) - self.data_mark
            self.row["forward"] -= loading_seconds
            self.row["waiting"] += loading_seconds
            self.data_mark += loading_seconds

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the backward pass."""
        self.switch_phase("optimizer")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Wait for the next batch, or for the device after the last."""
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.switch_phase("epoch_end" if trainer.is_last_batch else "waiting")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin validation."""
        self.switch_phase("validation")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End validation, of which there may be several in an epoch."""
        self.switch_phase("epoch_end" if trainer.is_last_batch else "waiting")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch."""
        self.switch_phase("epoch_end")
        # A pass for statistics of batch normalisation is no epoch.
        if self.row is None or (isinstance(pl_module, TrainingPlan) and pl_module.has_extra_epoch):
            return
        self.is_whole = True
        row = self.row
        row["rss_mib"] = rss_mib()
        if pl_module.device.type == "cuda":
            row["gpu_mib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**20
        logged = with_totals(row)
        for name in ("seconds", "cells_per_second", "waiting_share", "rss_mib", "gpu_mib"):
            if name in logged:
                pl_module.log(
                    f"resources/{name}", logged[name], on_step=False, on_epoch=True, batch_size=1
                )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the table."""
        self.close_epoch()
        self.write(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write the table with the interrupted epoch; log where it is if memory ran out."""
        self.switch_phase("epoch_end")
        cut_short = self.row if not self.is_whole else None
        self.close_epoch()
        if cut_short is not None:
            cut_short["rss_mib"] = rss_mib()
        self.write(trainer, cut_short)
        if is_out_of_memory(exception):
            where = (
                f"'{self.path}' has the memory of each epoch so far"
                if self.path is not None
                else "ResourceMonitor(path=...) writes the memory of each epoch into a table"
            )
            logger.error("Out of memory in epoch %d; %s.", trainer.current_epoch, where)

    def switch_phase(self, phase: str) -> None:
        """Count the time since the last look for the part that ends now."""
        if self.row is None:
            return  # validation before the first epoch
        now = time.perf_counter()
        self.row[self.phase] += now - self.mark
        self.phase, self.mark = phase, now

    def close_epoch(self) -> None:
        """Keep the row of an epoch that is complete."""
        self.switch_phase(self.phase)
        if self.row is not None and self.is_whole:
            self.rows.append(self.row)
        self.row, self.is_whole = None, False

    def complete_rows(self) -> list[Row]:
        """Rows of all complete epochs, that of the current one as it is now."""
        if self.row is None or not self.is_whole:
            return list(self.rows)
        open_row = dict(self.row)
        open_row[self.phase] += time.perf_counter() - self.mark
        return [*self.rows, open_row]

    def write(self, trainer: pl.Trainer, cut_short: Row | None = None) -> None:
        """Write the table atomically; a full disk is logged and does not stop the run."""
        self.written = time.monotonic()
        if self.path is None or not trainer.is_global_zero:
            return
        path = Path(self.path)
        table = format_table([*self.rows, *([cut_short] if cut_short else [])])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_atomically(path) as temporary:
                temporary.write_text(table, encoding="utf-8")
        except OSError as error:
            logger.warning("The table of resources could not be written: %s", error)

    def state_dict(self) -> dict[str, Any]:
        """Rows of complete epochs and names of devices, as plain values."""
        return {"rows": [dict(row) for row in self.complete_rows()], "devices": list(self.devices)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the rows of a resumed run."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self.devices = list(state_dict["devices"])


def data_loading_seconds(pl_module: pl.LightningModule) -> float:
    """Seconds that a plan has spent on taking cells; of other modules nothing is known."""
    return pl_module.step_loop.data_loading_seconds if isinstance(pl_module, TrainingPlan) else 0.0

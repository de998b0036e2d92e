"""What an epoch took of a machine, as a row of a table, and how it is found out."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellvae.contracts import StepBlock

PHASES = ("waiting", "forward", "backward", "optimizer", "validation", "epoch_end")
"""Parts of an epoch, in the order in which they come."""
COLUMNS = ("epoch", "seconds", *PHASES, "cells", "cells_per_second", "waiting_share", "rss_mib")

Row = dict[str, Any]


def with_totals(row: Mapping[str, Any]) -> Row:
    """Row with its sums and rates."""
    seconds = training_seconds(row)
    return {
        **row,
        "seconds": sum(row[name] for name in PHASES),
        "cells_per_second": row["cells"] / seconds if seconds else 0.0,
        "waiting_share": row["waiting"] / seconds if seconds else 0.0,
    }


def training_seconds(row: Mapping[str, Any]) -> float:
    """Seconds of an epoch without validation and what comes at its end."""
    return sum(row[name] for name in ("waiting", "forward", "backward", "optimizer"))


def mean_std_text(values: Sequence[float]) -> str:
    """Mean ± standard deviation [number] of some values."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {std:.4f} [{len(values)}]"


def format_text(rows: Sequence[Row], devices: Sequence[str]) -> str:
    """Lines of text: seconds of each part, and cells per second of all training."""
    if not rows:
        return "no epochs"
    lines = [f"{name} {mean_std_text([row[name] for row in rows])} s" for name in PHASES]
    n_cells = sum(row["cells"] for row in rows)
    seconds = sum(training_seconds(row) for row in rows)
    speed = n_cells / seconds if seconds else 0.0
    return "\n".join([*lines, f"{speed:,.0f} cells per second on {' then '.join(devices)}"])


def format_table(rows: Sequence[Row]) -> str:
    """Table of rows with tabs; memory of a GPU is in it where one was used."""
    whole = [with_totals(row) for row in rows]
    columns = [*COLUMNS, *(["gpu_mib"] if any("gpu_mib" in row for row in whole) else [])]
    lines = ["\t".join(format_cell(row.get(name)) for name in columns) for row in whole]
    return "\n".join(["\t".join(columns), *lines]) + "\n"


def format_cell(value: Any) -> str:
    """Value in a table; empty for none."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def count_cells(batch: Any) -> int:
    """Number of cells of a batch: those of a block, or the length of the first tensor in it."""
    if isinstance(batch, StepBlock):
        return batch.steps.numel()
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, Mapping | list | tuple):
        return next((n for part in parts if (n := count_cells(part))), 0)
    return 0


def device_name(device: torch.device) -> str:
    """What a device is called: the model of a GPU, or CPU with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def rss_mib() -> float:
    """Memory of this process in MiB: current if the system reports it, else the peak, else nan."""
    table = Path("/proc/self/statm")
    if table.exists():
        return int(table.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    if find_spec("resource") is not None:
        import resource

        # Systems without /proc that have this module count bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return float("nan")

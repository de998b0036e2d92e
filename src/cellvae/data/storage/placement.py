"""Placement of the cells of a run: on the device that trains, or in host memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal

import torch

from cellvae.contracts import B, Rows
from cellvae.core.platform.device_kind import is_cpu
from cellvae.data.storage.device import max_device_bytes, move_rows_to_device
from cellvae.data.storage.row_wrappers import ToDevice
from cellvae.errors import InvalidOptionError

Where = Literal["auto", "device", "memory"]
MAX_MEMORY_FRACTION = 0.5
"""Fraction of a device's free memory that cells may take; the rest is for the network."""


@dataclass(frozen=True)
class Placement(Generic[B]):
    """Rows of a data set, and where they are stored.

    Parameters
    ----------
    rows
        Rows that batches are read from.
    where
        `"device"` or `"memory"`.
    reason
        Why they are there, for the log.
    """

    rows: Rows[B]
    where: Literal["device", "memory"]
    reason: str


def choose_placement(
    rows: Rows[B], device: torch.device, requested: Where = "auto", *, free: int | None = None
) -> Placement[B]:
    """Place cells on a device if they fit there with a margin, else in host memory.

    Parameters
    ----------
    rows
        Cells.
    device
        Device that the model is trained on.
    requested
        Placement that the user has requested.
    free
        Free memory of the device in bytes; None to query it.

    Raises
    ------
    InvalidOptionError
        If the device is requested and the cells are in a file, or take more memory than it has.
    """
    if is_cpu(device):
        return Placement(rows, "memory", "the processor works there")
    if requested == "memory":
        return Placement(ToDevice(rows, device), "memory", "placement='memory'")
    size = max_device_bytes(rows)
    if size is None:
        if requested == "device":
            raise InvalidOptionError(
                "Expected cells in memory for placement='device'; they are read from a file. "
                "Load them first, adata = adata.to_memory(), or leave placement out."
            )
        return Placement(ToDevice(rows, device), "memory", "the cells are read from a file")
    available = free_device_memory(device) if free is None else free
    usage = f"{size / 2**30:.2f} of {available / 2**30:.2f} GiB free on {device}"
    if requested == "auto" and size > MAX_MEMORY_FRACTION * available:
        return Placement(ToDevice(rows, device), "memory", f"too large for the device: {usage}")
    if size > available:
        raise InvalidOptionError(
            f"Expected cells that fit on the device for placement='device'; they take {usage}. "
            "Use placement='memory'."
        )
    placed = move_rows_to_device(rows, device)
    if placed is None:
        return Placement(ToDevice(rows, device), "memory", "the cells are read from a file")
    return Placement(placed, "device", usage)


def free_device_memory(device: Any) -> int:
    """Free memory of a CUDA device in bytes; 0 for other devices."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0

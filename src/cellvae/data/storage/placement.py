"""Where the cells of a run are kept: on the device that learns from them, or in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal

import torch

from cellvae.contracts import B, Rows
from cellvae.data.storage.device import max_device_bytes, move_rows_to_device
from cellvae.data.storage.row_wrappers import ToDevice
from cellvae.errors import InvalidOptionError

Where = Literal["auto", "device", "memory"]
MAX_MEMORY_FRACTION = 0.5
"""Share of the free memory of a device that cells may take; the rest is for the network."""


@dataclass(frozen=True)
class Placement(Generic[B]):
    """Cells, where they are kept.

    Parameters
    ----------
    rows
        Rows to take batches from.
    where
        `"device"` or `"memory"`.
    reason
        Why there, for people.
    """

    rows: Rows[B]
    where: Literal["device", "memory"]
    reason: str


def choose_placement(
    rows: Rows[B], device: torch.device, asked: Where = "auto", *, free: int | None = None
) -> Placement[B]:
    """Keep cells on a device if they fit there with margin, else in memory.

    Parameters
    ----------
    rows
        Cells.
    device
        Device that learns from them.
    asked
        Where the user wants them.
    free
        Free memory of the device, in bytes; None to ask it.

    Raises
    ------
    InvalidOptionError
        If they are wanted on the device and are in a file, or take more memory than it has.
    """
    if device.type == "cpu":
        return Placement(rows, "memory", "the processor works there")
    if asked == "memory":
        return Placement(ToDevice(rows, device), "memory", "placement='memory'")
    size = max_device_bytes(rows)
    if size is None:
        if asked == "device":
            raise InvalidOptionError(
                "Expected cells in memory for placement='device'; they are read from a file. "
                "Load them first, adata = adata.to_memory(), or leave placement out."
            )
        return Placement(ToDevice(rows, device), "memory", "the cells are read from a file")
    room = free_device_memory(device) if free is None else free
    told = f"{size / 2**30:.2f} of {room / 2**30:.2f} GiB free on {device}"
    if asked == "auto" and size > MAX_MEMORY_FRACTION * room:
        return Placement(ToDevice(rows, device), "memory", f"too large for the device: {told}")
    if size > room:
        raise InvalidOptionError(
            f"Expected cells that fit on the device for placement='device'; they take {told}. "
            "Use placement='memory'."
        )
    placed = move_rows_to_device(rows, device)
    if placed is None:
        return Placement(ToDevice(rows, device), "memory", "the cells are read from a file")
    return Placement(placed, "device", told)


def free_device_memory(device: Any) -> int:
    """Free memory of a device, in bytes; none is known of devices other than CUDA."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0

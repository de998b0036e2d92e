"""Device that a loaded network is put on."""

from __future__ import annotations

import torch

from cellvae.errors import InvalidOptionError


def pick_device(accelerator: str, device: int | str) -> torch.device:
    """Device for a network that is loaded.

    Raises
    ------
    InvalidOptionError
        If there is no such device.
    """
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"gpu": "cuda"}.get(accelerator, accelerator)
    try:
        found = (
            torch.device(kind)
            if device == "auto" or kind == "cpu"
            else torch.device(kind, int(device))
        )
        torch.empty(0, device=found)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InvalidOptionError(
            f"Expected a device of this machine; got accelerator={accelerator!r}, "
            f"device={device!r}: {error}"
        ) from error
    return found

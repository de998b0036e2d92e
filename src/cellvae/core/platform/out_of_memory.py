"""Errors of memory that could not be allocated."""

from __future__ import annotations

OUT_OF_MEMORY_MESSAGES = ("out of memory", "allocate memory")
"""Parts of the messages of torch's RuntimeErrors for an allocation that failed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device or the machine has run out of memory."""
    import torch  # not needed to import the package

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(t in message for t in OUT_OF_MEMORY_MESSAGES)

"""Copy of the buffers of a network, made and brought back by few operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cellvae.core.platform.torch_adapter import copy_all_


class BufferCopy:
    """Values of the buffers of a network before a step.

    The copies of all buffers of a dtype are one tensor, so that a step that saves them and restores
    them if it was not finite takes four operations on a device for each dtype, not three for each
    buffer.

    Parameters
    ----------
    buffers
        Buffers, which steps change in place.

    Attributes
    ----------
    saved
        Their values as they were saved last, a vector for each dtype.
    """

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        dtypes = dict.fromkeys(b.dtype for b in buffers)
        self.groups = [[b for b in buffers if b.dtype == dtype] for dtype in dtypes]
        self.saved = [concat_values(group) for group in self.groups]

    def save(self) -> None:
        """Copy the values that the buffers have now."""
        with torch.no_grad():
            for saved, group in zip(self.saved, self.groups, strict=True):
                concat_values(group, out=saved)

    def restore(self, where: Tensor | None = None) -> None:
        """Bring back the saved values, or only if `where` is true on the device."""
        with torch.no_grad():
            for saved, group in zip(self.saved, self.groups, strict=True):
                values = saved if where is None else torch.where(where, saved, concat_values(group))
                parts = values.split([b.numel() for b in group])
                copy_all_(group, [p.view_as(b) for p, b in zip(parts, group, strict=True)])


def concat_values(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Values of all tensors, one after the other, in a new tensor or in `out`."""
    return torch.cat([t.detach().reshape(-1) for t in tensors], out=out)

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
        self.groups = [[b.detach() for b in buffers if b.dtype == dtype] for dtype in dtypes]
        # Views, made once; only what is not contiguous is copied at each step.
        self.vectors = [
            [b.view(-1) if b.is_contiguous() else b for b in group] for group in self.groups
        ]
        self.saved = [concat_values(vectors) for vectors in self.vectors]

    def save(self) -> None:
        """Copy the values that the buffers have now."""
        for saved, vectors in zip(self.saved, self.vectors, strict=True):
            concat_values(vectors, out=saved)

    def restore(self, where: Tensor | None = None) -> None:
        """Bring back the saved values, or only if `where` is true on the device."""
        for saved, vectors, group in zip(self.saved, self.vectors, self.groups, strict=True):
            values = saved if where is None else torch.where(where, saved, concat_values(vectors))
            parts = values.split([b.numel() for b in group])
            copy_all_(group, [p.view_as(b) for p, b in zip(parts, group, strict=True)])


def concat_values(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Values of all tensors, one after the other, in a new tensor or in `out`."""
    return torch.cat([t if t.ndim == 1 else t.reshape(-1) for t in tensors], out=out)

"""Log-probabilities of the cells in which a modality was measured, without work for the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch
from cellvae.core.platform.device_kind import is_cpu
from cellvae.kernels import LazyLinear

CellValues = Tensor | CSRBatch | LazyLinear | None
"""Argument of a kernel: values of cells, or a vector with a parameter of each feature."""


def log_prob_of_measured(
    kernel: Callable[..., Float[Tensor, " chosen"]],
    measured: Bool[Tensor, "cells 1"],
    *arguments: CellValues,
) -> Float[Tensor, " cells"]:
    """Log-probability of each cell by a kernel, 0 in cells that were not measured; in nats.

    Only measured cells go through the kernel and the linear layers that it computes. All cells do
    if none was measured, so that every parameter has a gradient, and on a GPU, where to find the
    measured ones would wait for the device in every step and could not be captured.

    Parameters
    ----------
    kernel
        Function that gives the log-probability of each cell.
    measured
        In which cells the modality was measured.
    *arguments
        Arguments of the kernel.
    """
    chosen = measured.squeeze(-1)
    if not is_cpu(chosen.device):
        return torch.where(chosen, kernel(*arguments), 0.0)
    cells = chosen.nonzero().squeeze(-1)
    if len(cells) in (0, len(chosen)):
        return torch.where(chosen, kernel(*arguments), 0.0)
    log_prob = kernel(*(take_cells(values, cells) for values in arguments))
    return log_prob.new_zeros(len(chosen)).index_copy(0, cells, log_prob)


def take_cells(values: CellValues, cells: Int[Tensor, " chosen"]) -> CellValues:
    """Values of some cells, by index; a parameter of each feature stays as it is."""
    if values is None or (isinstance(values, Tensor) and values.ndim == 1):
        return values
    if isinstance(values, CSRBatch):
        return values.take_cells(cells)
    if isinstance(values, LazyLinear):
        return values._replace(features=values.features[cells])
    return values[cells]

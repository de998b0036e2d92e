"""Batch normalisation over the cells of all processes of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from cellvae.nn.layers import BatchNorm

if TYPE_CHECKING:
    from datetime import timedelta

SYNCHRONISED = (nn.BatchNorm1d, BatchNorm)
"""Classes of the layers that are synchronised; subclasses may compute something else."""


class ProcessSums:
    """Adds tensors up over the processes of a run, in a group of its own.

    Messages of the group are matched by their order among themselves, whatever else the processes
    exchange meanwhile. It is created at the first sum, when all processes can be reached. A copy
    creates another group.

    Parameters
    ----------
    timeout
        How long a process waits for the others; None for torch's default.
    """

    def __init__(self, timeout: timedelta | None = None) -> None:
        self.timeout = timeout
        self.group: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (ProcessSums, (self.timeout,))

    def add_up(self, own: Tensor) -> Tensor:
        """Sum over processes of a tensor, which is overwritten."""
        if self.group is None:
            self.group = distributed.new_group(timeout=self.timeout)
        distributed.all_reduce(own, group=self.group)
        return own

    def close(self) -> None:
        """End the group."""
        if self.group is not None and distributed.is_initialized():
            distributed.destroy_process_group(self.group)
        self.group = None


class SyncBatchNorm(BatchNorm):
    """Batch normalisation whose statistics in training are those of the cells of all processes.

    Outputs, running statistics and, where the gradients of the processes are added up, gradients
    are those of a single process that has all cells, up to rounding. A process may have any number
    of cells, also none; where all have a single cell together it is normalised with the running
    statistics. All processes must call the same layers in the same order, forward and backward:
    each call is one message, of two numbers for each feature.

    Unlike torch's `SyncBatchNorm`, it computes on any device. Layers become synchronised, for a
    time, by :func:`synchronise_batch_norm`.

    References
    ----------
    Ioffe and Szegedy (2015): Batch Normalization: Accelerating Deep Network Training by Reducing
    Internal Covariate Shift. ICML; the gradient is on page 4.
    """

    sums: ProcessSums

    def forward(self, input: Tensor) -> Tensor:
        """Normalised features, [cells, features] or [cells, features, positions]."""
        if not self.training:
            return super().forward(input)
        if input.ndim > 2:
            flat = self.forward(input.transpose(1, -1).flatten(0, -2))
            return flat.unflatten(0, (len(input), -1)).transpose(1, -1)
        mean, variance, n_cells = self.batch_statistics(input.detach())
        scale = torch.promote_types(input.dtype, torch.float32)
        inverse_std = (variance + self.eps).rsqrt()
        output: Tensor = NormaliseOverProcesses.apply(
            input,
            self.weight,
            self.bias,
            mean.to(scale),
            inverse_std.to(scale),
            n_cells.to(scale),
            self.sums,
        )
        return output

    @torch.no_grad()
    def batch_statistics(
        self, features: Float[Tensor, "cells features"]
    ) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"], Float[Tensor, ""]]:
        """Mean and variance of each feature, and number of cells, in double precision.

        Running statistics are updated. A single cell has those as its statistics, and counts as
        infinitely many: it does not change them.
        """
        wide = features.double()
        n_own = wide.new_full((1,), len(features))
        total = self.sums.add_up(torch.cat([wide.sum(0), wide.square().sum(0), n_own]))
        n_cells = total[-1]
        mean, square = (total[:-1] / n_cells).chunk(2)
        # In double precision the difference loses nothing that a weight in single precision has.
        variance = (square - mean * mean).clamp_(min=0.0)
        several = n_cells > 1
        if self.running_mean is not None and self.running_var is not None:
            mean = torch.where(several, mean, self.running_mean.double())
            variance = torch.where(several, variance, self.running_var.double())
            self.update_running(mean, variance, n_cells, several)
        return mean, variance, torch.where(several, n_cells, torch.inf)

    def update_running(
        self, mean: Tensor, variance: Tensor, n_cells: Tensor, several: Tensor
    ) -> None:
        """Update the running statistics with those of a batch, if it has several cells."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(several.to(self.num_batches_tracked))
        if self.momentum is None:
            weight: Tensor = several / self.num_batches_tracked.clamp(min=1).double()
        else:
            weight = several.double() * self.momentum
        unbiased = variance * torch.where(several, n_cells / (n_cells - 1), 1.0)
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.copy_(running.double().lerp_(value, weight))


class NormaliseOverProcesses(torch.autograd.Function):
    """Features less their mean, times the inverse of their standard deviation, weight and bias.

    Mean and standard deviation are of the cells of all processes; so are the sums in the gradient
    of the features. Gradients of weight and bias are of the own cells, as those of other weights.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        n_cells: Tensor,
        sums: ProcessSums,
    ) -> Tensor:
        """Normalised features, [cells, features]."""
        ctx.save_for_backward(features, weight, mean, inverse_std, n_cells)
        ctx.sums = sums
        normalised = (features - mean) * inverse_std
        weighted = normalised if weight is None else normalised * weight
        return (weighted if bias is None else weighted + bias).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the features, the weight and the bias."""
        features, weight, mean, inverse_std, n_cells = ctx.saved_tensors
        grad = grad_output.to(mean.dtype)
        normalised = (features - mean) * inverse_std
        own = torch.stack([grad.sum(0), (grad * normalised).sum(0)])
        needs = ctx.needs_input_grad
        grad_features = None
        if needs[0]:
            of_mean, of_std = ctx.sums.add_up(own.clone()) / n_cells
            scale = inverse_std if weight is None else inverse_std * weight
            grad_features = (grad - of_mean - normalised * of_std) * scale
            grad_features = grad_features.to(features.dtype)
        grad_bias = own[0] if needs[2] else None
        grad_weight = own[1] if needs[1] else None
        return grad_features, grad_weight, grad_bias, None, None, None, None


def can_synchronise(network: nn.Module) -> bool:
    """Whether all batch normalisation of a network can be over the cells of all processes."""
    norms = (
        part
        for part in network.modules()
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    )
    return all(type(part) in SYNCHRONISED for part in norms)


@contextmanager
def synchronise_batch_norm(
    *networks: nn.Module, timeout: timedelta | None = None
) -> Iterator[None]:
    """Context in which the batch normalisation of networks is over the cells of all processes.

    The layers stay the same objects, with their parameters and hooks, and are of another class for
    the time. All processes of the default group of `torch.distributed` have to enter.

    Parameters
    ----------
    *networks
        Networks whose layers of class `torch.nn.BatchNorm1d` or
        :class:`~cellvae.nn.layers.BatchNorm` are synchronised.
    timeout
        How long a process waits for the others; None for torch's default.
    """
    sums = ProcessSums(timeout)
    layers = [part for each in networks for part in each.modules() if type(part) in SYNCHRONISED]
    classes = [type(layer) for layer in layers]
    try:
        for layer in layers:
            layer.__class__ = SyncBatchNorm
            layer.sums = sums  # type: ignore[assignment]
        yield
    finally:
        for layer, own_class in zip(layers, classes, strict=True):
            layer.__class__ = own_class
            del layer.sums
        sums.close()

"""Batch normalisation that can also be trained with a batch of one cell."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation; one cell alone is normalised by the running mean and variance.

    One cell has no variance, so in training torch refuses a batch of one. Such a batch (the only
    labelled cell of a step, say) is normalised as in evaluation, and leaves the running statistics
    as they are. Larger batches, names and saved values are those of `torch.nn.BatchNorm1d`.
    """

    def forward(self, input: Float[Tensor, "cells features"]) -> Float[Tensor, "cells features"]:
        """Normalised features."""
        if not self.training or len(input) != 1 or self.running_mean is None:
            return super().forward(input)
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

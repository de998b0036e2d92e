"""How well labels are told: sums over cells that can be added up, and metrics made of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

N_BINS = 15
"""Bins of the confidence, for the calibration error."""

METRICS = ("classification_loss", "accuracy", "f1_score", "calibration_error")
"""Names of the metrics."""


class ClassificationSums(NamedTuple):
    """Sums over cells whose label is known; those of several batches can be added."""

    cross_entropy: Float[Tensor, ""]
    """Negative log-probability of the known labels; nats."""
    confusion: Float[Tensor, "labels labels"]
    """Number of cells by known label (rows) and most probable one (columns)."""
    bins: Float[Tensor, "bins 3"]
    """By confidence: number of cells, of those told right, and sum of the confidence."""


def classification_sums(
    scores: Float[Tensor, "cells labels"], labels: Int[Tensor, " cells"], *, logits: bool = True
) -> ClassificationSums:
    """Sums of a batch; nothing is read back from the device.

    Without `logits` the scores are probabilities. The cross-entropy is that of the loss, which
    takes them for logits all the same.
    """
    n_labels = scores.shape[-1]
    cross_entropy = functional.cross_entropy(scores, labels, reduction="sum").detach()
    probabilities = scores.detach().softmax(dim=-1) if logits else scores.detach()
    confidence, told = probabilities.max(dim=-1)
    ones = torch.ones_like(confidence)
    confusion = ones.new_zeros(n_labels * n_labels)
    confusion.index_add_(0, labels * n_labels + told, ones)
    # A bin has its upper bound in it, as is usual.
    place = (confidence * N_BINS).ceil().long().sub(1).clamp(0, N_BINS - 1)
    rows = torch.stack([ones, (told == labels).to(ones.dtype), confidence], dim=1)
    bins = ones.new_zeros(N_BINS, 3).index_add_(0, place, rows)
    return ClassificationSums(cross_entropy, confusion.view(n_labels, n_labels), bins)


def classification_metrics(sums: ClassificationSums) -> dict[str, Float[Tensor, ""]]:
    """Metrics over all cells that were added up, exact however they came in batches.

    The loss is in nats per cell. The F1 score is the mean over labels that a cell has or is told
    to have (macro). The calibration error is the mean distance of accuracy and confidence over
    bins of the confidence, weighted by cells (Guo et al. 2017, equation 3).
    """
    n_cells = sums.confusion.sum()
    right = sums.confusion.diagonal()
    asked = sums.confusion.sum(dim=0) + sums.confusion.sum(dim=1)
    f1 = (2 * right / asked.clamp(min=1)).sum() / (asked > 0).sum()
    _, correct, confidence = sums.bins.unbind(dim=1)
    values = (
        sums.cross_entropy / n_cells,
        right.sum() / n_cells,
        f1,
        (correct - confidence).abs().sum() / n_cells,
    )
    return dict(zip(METRICS, values, strict=True))

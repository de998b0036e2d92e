"""Metrics of a classifier: sums over the cells of a batch, and the metrics computed from them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

N_BINS = 15
"""Number of confidence bins of the calibration error."""

METRICS = ("classification_loss", "accuracy", "f1_score", "calibration_error")
"""Names of the metrics."""


class ClassificationSums(NamedTuple):
    """Sums over labelled cells; those of several batches can be added."""

    cross_entropy: Float[Tensor, ""]
    """Negative log-probability of the known labels; nats."""
    confusion: Float[Tensor, "labels labels"]
    """Number of cells by true label (rows) and predicted label (columns)."""
    bins: Float[Tensor, "bins 3"]
    """By confidence: number of cells, number predicted correctly, and sum of the confidence."""


def classification_sums(
    scores: Float[Tensor, "cells labels"], labels: Int[Tensor, " cells"], *, logits: bool = True
) -> ClassificationSums:
    """Sums of a batch, without waiting for the GPU.

    Parameters
    ----------
    scores
        Output of the classifier.
    labels
        True labels.
    logits
        Whether the scores are logits; otherwise they are probabilities. The cross-entropy treats
        them as logits in both cases, as the loss does.
    """
    n_labels = scores.shape[-1]
    cross_entropy = functional.cross_entropy(scores, labels, reduction="sum").detach()
    probabilities = scores.detach().softmax(dim=-1) if logits else scores.detach()
    confidence, predicted = probabilities.max(dim=-1)
    ones = torch.ones_like(confidence)
    confusion = ones.new_zeros(n_labels * n_labels)
    confusion.index_add_(0, labels * n_labels + predicted, ones)
    # Bins include their upper bound, as in the definition.
    bin_index = (confidence * N_BINS).ceil().long().sub(1).clamp(0, N_BINS - 1)
    rows = torch.stack([ones, (predicted == labels).to(ones.dtype), confidence], dim=1)
    bins = ones.new_zeros(N_BINS, 3).index_add_(0, bin_index, rows)
    return ClassificationSums(cross_entropy, confusion.view(n_labels, n_labels), bins)


def classification_metrics(sums: ClassificationSums) -> dict[str, Float[Tensor, ""]]:
    """Metrics over all cells of the sums; they do not depend on how the cells were batched.

    The loss is in nats per cell. The F1 score is the macro average over labels that occur among the
    true or the predicted ones. The calibration error is the expected calibration error: the mean
    absolute difference of accuracy and confidence over bins of the confidence, weighted by the
    number of cells (Guo et al. 2017, equation 3).
    """
    n_cells = sums.confusion.sum()
    correct_by_label = sums.confusion.diagonal()
    true_plus_predicted = sums.confusion.sum(dim=0) + sums.confusion.sum(dim=1)
    f1 = 2 * correct_by_label / true_plus_predicted.clamp(min=1)
    _, correct, confidence = sums.bins.unbind(dim=1)
    values = (
        sums.cross_entropy / n_cells,
        correct_by_label.sum() / n_cells,
        f1.sum() / (true_plus_predicted > 0).sum(),
        (correct - confidence).abs().sum() / n_cells,
    )
    return dict(zip(METRICS, values, strict=True))

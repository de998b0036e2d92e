"""Metrics of labels, beside scikit-learn and a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import Tensor

from cellvae.nn.classification_metrics import (
    METRICS,
    ClassificationSums,
    classification_metrics,
    classification_sums,
)


def cells() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(200, 5, generator=generator)
    # No cell has the last label, but it is predicted for some.
    labels = torch.randint(0, 4, (200,), generator=generator)
    logits[torch.arange(100), labels[:100]] += 3
    return logits, labels


def test_metrics_are_exact_however_cells_come_in_batches() -> None:
    logits, labels = cells()
    parts = [
        classification_sums(logits[part], labels[part])
        for part in (slice(0, 7), slice(7, 150), slice(150, 200))
    ]
    sums = ClassificationSums(*(sum(values) for values in zip(*parts, strict=True)))
    found = {name: float(value) for name, value in classification_metrics(sums).items()}
    assert tuple(found) == METRICS
    probabilities, predicted = logits.double().softmax(dim=-1).numpy(), logits.argmax(dim=-1)
    loss = log_loss(labels, probabilities, labels=range(5))
    assert found["classification_loss"] == pytest.approx(loss, rel=1e-5)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["f1_score"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    confidence = probabilities.max(axis=1)
    error = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            right = (predicted == labels).numpy()[inside].mean()
            error += inside.mean() * abs(right - confidence[inside].mean())
    assert found["calibration_error"] == pytest.approx(error, rel=1e-5)


def test_certain_and_right_is_perfect() -> None:
    labels = torch.arange(4)
    logits = torch.full((4, 4), -200.0).fill_diagonal_(200.0)
    found = classification_metrics(classification_sums(logits, labels))
    np.testing.assert_allclose([float(v) for v in found.values()], [0, 1, 1, 0], atol=1e-6)

from __future__ import annotations

import time

import numpy as np
import pytest

from cellvae import evaluation
from cellvae.errors import InvalidOptionError
from cellvae.evaluation import integration_scores
from cellvae.evaluation.integration.integration_scores import (
    PANEL,
    REQUIRED_COLUMNS,
    panel_score_names,
)


@pytest.fixture
def cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, batches and labels that overlap somewhat."""
    rng = np.random.default_rng(0)
    batch, labels = rng.choice(["b0", "b1"], 300), rng.choice(["x", "y", "z"], 300)
    shift = 1.5 * (labels == "y")[:, None] + 0.7 * (batch == "b1")[:, None] * np.eye(3)[0]
    return rng.normal(size=(300, 3)) + shift, batch, labels


def test_each_score_is_that_of_its_own_function(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    latent, batch, labels = cells
    agreement = evaluation.cluster_agreement(latent, labels, seed=3)
    expected = {
        "knn_label_accuracy": evaluation.knn_accuracy(latent, labels, k=12),
        "knn_label_f1": evaluation.knn_f1(latent, labels, k=12),
        "ilisi": evaluation.ilisi(latent, batch),
        "clisi": evaluation.clisi(latent, labels),
        "asw_batch": evaluation.asw_batch(latent, batch, labels),
        "bras": evaluation.bras(latent, batch, labels),
        "isolated_labels": evaluation.isolated_labels(latent, batch, labels),
        "asw_label": evaluation.asw_label(latent, labels),
        "nmi": agreement.nmi,
        "ari": agreement.ari,
        "graph_connectivity": evaluation.graph_connectivity(latent, labels, k=12),
        "pcr": evaluation.pcr(latent, batch),
    }
    scores = integration_scores(latent, batch, labels, metrics=[*expected], k=12, seed=3)
    assert list(scores) == list(expected)
    assert scores == pytest.approx(expected, abs=1e-12)


def test_labels_go_from_train_to_test_cells(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    latent, _, labels = cells
    kwargs = {"train": np.arange(200), "test": np.arange(200, 300)}
    scores = integration_scores(latent, labels=labels, **kwargs)
    assert scores["knn_label_accuracy"] == pytest.approx(
        evaluation.knn_accuracy(latent, labels, **kwargs)
    )
    assert scores["knn_label_f1"] == evaluation.knn_f1(latent, labels, **kwargs)


def test_scores_without_what_they_need_are_left_out_or_refused(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    latent, batch, labels = cells
    assert set(integration_scores(latent, batch)) == {"ilisi", "asw_batch", "bras", "pcr"}
    both = set(integration_scores(latent, labels=labels)) | {"ilisi", "asw_batch", "bras", "pcr"}
    assert both == set(PANEL)
    with pytest.raises(InvalidOptionError, match="Expected labels for 'nmi'; got none"):
        integration_scores(latent, batch, metrics=["nmi"])
    with pytest.raises(InvalidOptionError, match="got 'ilsi'. Did you mean 'ilisi'"):
        panel_score_names(["ilsi"])
    with pytest.raises(InvalidOptionError, match="two or more values of batch"):
        integration_scores(latent, ["one"] * 300, labels)


def test_every_score_has_a_definition() -> None:
    found = evaluation.definitions_of([name for name in REQUIRED_COLUMNS if name != "scib"])
    assert all(found.values()) and set(PANEL) < set(found)
    assert evaluation.definitions_of(["scib_bras"])["scib_bras"].startswith("bras of scib-metrics ")


def test_a_neighbourhood_of_more_than_90_cells_is_searched_too(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    latent, batch, labels = cells
    scores = integration_scores(latent, batch, labels, metrics=["ilisi", "knn_label_f1"], k=120)
    assert scores["ilisi"] == pytest.approx(evaluation.ilisi(latent, batch), abs=1e-12)
    assert scores["knn_label_f1"] == evaluation.knn_f1(latent, labels, k=120)


def test_5000_cells_take_a_moment() -> None:
    rng = np.random.default_rng(0)
    latent, batch = rng.normal(size=(5_000, 10)), rng.integers(0, 4, 5_000)
    labels = rng.integers(0, 10, 5_000)
    start = time.process_time()
    integration_scores(latent + labels[:, None], batch, labels)
    # About two seconds of computing; the bound is wide.
    assert time.process_time() - start < 10

"""Scores of a latent space beside those of two versions of scib-metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellvae import evaluation
from cellvae.evaluation import integration_scores
from cellvae.evaluation.integration.lisi import lisi_from_neighbours
from cellvae.evaluation.neighbours import find_neighbours

VERSIONS = ("0.5.1", "0.6.1")


@pytest.fixture(params=VERSIONS)
def theirs(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """What `write_scib.py` wrote."""
    with np.load(Path(__file__).with_name(f"scib_{request.param}.npz")) as arrays:
        return dict(arrays)


def test_lisi_of_each_cell_is_that_of_both_versions(theirs: dict[str, np.ndarray]) -> None:
    latent = theirs["latent"]
    every = np.arange(len(latent))
    around = find_neighbours(latent, 89, every, every)
    for name in ("batch", "labels"):
        found = lisi_from_neighbours(around.distances, theirs[name][around.cells])
        expected = theirs["lisi of batches" if name == "batch" else "lisi of labels"]
        # They stop once the entropy is within 1e-5.
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_scores_are_those_of_both_versions(theirs: dict[str, np.ndarray]) -> None:
    latent, batch, labels = (theirs[name] for name in ("latent", "batch", "labels"))
    names = ["ilisi", "clisi", "asw_batch", "asw_label", "isolated_labels"]
    names += ["bras"] if "bras" in theirs else []
    scores = integration_scores(latent, batch, labels, metrics=names)
    assert scores == pytest.approx({name: float(theirs[name]) for name in names}, rel=1e-5)


def test_bras_has_the_options_of_theirs() -> None:
    with np.load(Path(__file__).with_name("scib_0.6.1.npz")) as theirs:
        for metric in ("cosine", "euclidean"):
            for between in ("mean_other", "furthest"):
                kwargs: Any = {"metric": metric, "between_cluster_distances": between}
                found = evaluation.bras(
                    theirs["latent"], theirs["batch"], theirs["labels"], **kwargs
                )
                assert found == pytest.approx(float(theirs[f"bras {metric} {between}"]))


@pytest.mark.filterwarnings("ignore")
def test_the_installed_version_agrees_too(theirs: dict[str, np.ndarray]) -> None:
    pytest.importorskip("scib_metrics")
    latent, batch, labels = (theirs[name] for name in ("latent", "batch", "labels"))
    scores = integration_scores(
        latent, batch, labels, metrics=["scib", "ilisi", "clisi", "bras", "isolated_labels"]
    )
    for name in ("ilisi", "clisi", "isolated_labels", "bras"):
        if f"scib_{name}" in scores:
            assert scores[name] == pytest.approx(scores[f"scib_{name}"], rel=2e-4), name
    definitions = evaluation.definitions_of([name for name in scores if "scib_" in name])
    assert all("scib-metrics 0." in text for text in definitions.values())

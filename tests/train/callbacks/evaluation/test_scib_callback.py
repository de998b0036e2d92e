"""Scores of integration under the names of scib-metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.errors import InvalidOptionError
from cellvae.evaluation import integration_scores
from cellvae.evaluation.integration import scib as scib_panel
from cellvae.model import SCVI
from cellvae.train import ScibCallback

pytestmark = pytest.mark.trains

BIO = ["Isolated labels", "KMeans NMI", "KMeans ARI", "Silhouette label", "cLISI"]
BATCH = ["BRAS", "iLISI", "Graph connectivity", "PCR"]
AGGREGATES = ["Bio conservation", "Batch correction", "Total"]
QUICK: dict[str, Any] = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False}


@dataclass(frozen=True)
class BioConservation:
    """As scib-metrics has it."""

    isolated_labels: Any = True
    nmi_ari_cluster_labels_leiden: Any = False
    nmi_ari_cluster_labels_kmeans: Any = True
    silhouette_label: Any = True
    clisi_knn: Any = True


@dataclass(frozen=True)
class BatchCorrection:
    """As scib-metrics 0.6 has it."""

    bras: Any = True
    ilisi_knn: Any = True
    kbet_per_label: Any = True
    graph_connectivity: Any = True
    pcr_comparison: Any = True
    sbee: Any = False


@pytest.fixture
def cells() -> AnnData:
    return cellvae.data.synthetic_iid(batch_size=60, n_genes=15)


def model_of(cells: AnnData, **setup: Any) -> SCVI:
    SCVI.setup_anndata(cells, **setup)
    torch.manual_seed(0)
    return SCVI(cells, n_hidden=8, n_latent=3)


def test_scores_and_their_means_are_those_of_the_last_epoch(cells: AnnData) -> None:
    model = model_of(cells, batch_key="batch", labels_key="labels")
    callback = ScibCallback()
    assert callback.produced_metrics() == BIO + BATCH + AGGREGATES
    model.train(max_epochs=3, callbacks=[callback], early_stopping=False, **QUICK)
    last = callback.scores[-1]
    assert last["epoch"] == 2 and list(last)[1:] == BIO + BATCH + AGGREGATES
    ours = integration_scores(
        model.get_latent_representation(),
        cells.obs["batch"],
        cells.obs["labels"],
        metrics=["isolated_labels", "nmi", "ari", "asw_label", "clisi"]
        + ["bras", "ilisi", "graph_connectivity", "pcr"],
    )
    expected = dict(zip(BIO + BATCH, ours.values(), strict=True))
    assert {name: last[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    bio, batch = np.mean([*ours.values()][:5]), np.mean([*ours.values()][5:])
    assert last["Bio conservation"] == pytest.approx(bio, abs=1e-6)
    assert last["Batch correction"] == pytest.approx(batch, abs=1e-6)
    assert last["Total"] == pytest.approx(0.6 * bio + 0.4 * batch, abs=1e-6)
    assert model.history["Total"].iloc[-1, 0] == pytest.approx(last["Total"])
    assert model.history.notes["definitions"] == callback.definitions
    assert callback.definitions["Total"] == "0.6 Bio conservation + 0.4 Batch correction"
    assert list(callback.definitions) == BIO + BATCH + AGGREGATES


def test_the_mean_can_be_monitored(cells: AnnData) -> None:
    model = model_of(cells, batch_key="batch", labels_key="labels")
    callback = ScibCallback(
        BioConservation(), BatchCorrection(), num_rows_to_select=80, every_n_epochs=1
    )
    model.train(
        max_epochs=5,
        callbacks=[callback],
        early_stopping=True,
        early_stopping_monitor="Total",
        early_stopping_patience=50,
        check_val_every_n_epoch=1,
        **QUICK,
    )
    totals = [row["Total"] for row in callback.scores]
    assert model.training_report is not None
    assert model.training_report.best_epoch == int(np.argmax(totals))


def test_cells_and_columns_are_the_users(cells: AnnData) -> None:
    model = model_of(cells)
    callback = ScibCallback(
        None,
        {"ilisi_knn": True, "bras": False},
        indices_list=np.arange(0, 120, 2),
        batch_key="batch",
        prefix="scib",
    )
    assert callback.produced_metrics() == ["scib/iLISI", "scib/Batch correction"]
    model.train(max_epochs=1, callbacks=[callback], **QUICK)
    latent = model.get_latent_representation(indices=np.arange(0, 120, 2))
    ours = integration_scores(latent, cells.obs["batch"][::2], metrics=["ilisi"])
    assert callback.scores[0]["iLISI"] == pytest.approx(ours["ilisi"], abs=1e-6)
    # Nothing of one run stays for the next: the columns of the set-up are looked up again.
    unset = ScibCallback(None, "ilisi_knn", indices_list=[])
    with pytest.raises(InvalidOptionError, match="Expected batch of the cells for 'ilisi'"):
        model.train(max_epochs=1, callbacks=[unset], **QUICK)
    again = model_of(cells, batch_key="batch")
    again.train(max_epochs=1, callbacks=[unset], **QUICK)
    assert len(unset.scores) == 1 and unset.batch_key is None


def test_scores_of_scib_metrics_itself_are_named_with_its_version(
    cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = (*scib_panel.BIO_CONSERVATION, "bras", "ilisi", "kbet", "graph_connectivity")
    values = {f"scib_{name}": i / 10 for i, name in enumerate(panel)}
    for module in (
        "evaluation.integration.integration_scores",
        "train.callbacks.evaluation.scib_callback",
    ):
        monkeypatch.setattr(f"cellvae.{module}.scib_metrics", lambda: panel)
    monkeypatch.setattr(
        "cellvae.evaluation.integration.integration_scores.scib_scores", lambda *_: values
    )
    monkeypatch.setattr("cellvae.evaluation.integration.definitions.scib_version", lambda: "0.6.1")
    model = model_of(cells, batch_key="batch", labels_key="labels")
    callback = ScibCallback(package="scib-metrics")
    model.train(max_epochs=1, callbacks=[callback], **QUICK)
    last = callback.scores[-1]
    assert last["KBET"] == 0.7 and last["BRAS"] == 0.5 and last["Silhouette label"] == 0.3
    assert last["Bio conservation"] == pytest.approx(0.2)
    assert last["Batch correction"] == pytest.approx((2.6 + last["PCR"]) / 5)
    assert callback.definitions["BRAS"] == "bras of scib-metrics 0.6.1"
    assert "scib" not in callback.definitions["PCR"]
    with pytest.raises(InvalidOptionError, match="has no 'silhouette_batch'"):
        ScibCallback(batch_correction_metrics=["silhouette_batch"], package="scib-metrics")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"package": "scib"}, "'cellvae' or 'scib-metrics'; got 'scib'"),
        ({"bio_conservation_metrics": ["clisi"]}, "Did you mean 'clisi_knn'"),
        (
            {"bio_conservation_metrics": BioConservation(True, True)},
            "use nmi_ari_cluster_labels_kmeans",
        ),
        ({"batch_correction_metrics": {"sbee": True}}, "use bras"),
        ({"batch_correction_metrics": {"bras": {"metric": "cosine"}}}, "no options here"),
        ({"bio_conservation_metrics": None, "batch_correction_metrics": None}, "got none"),
        (
            {"bio_conservation_metrics": None, "batch_correction_metrics": "kbet_per_label"},
            "needs package='scib-metrics'",
        ),
        ({"num_rows_to_select": 0}, "num_rows_to_select to be at least 1"),
    ],
)
def test_what_it_cannot_score_is_refused(kwargs: Any, message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        ScibCallback(**kwargs)

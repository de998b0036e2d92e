"""Scores of retrieval, epoch by epoch, and the run they leave as it was."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from sklearn.neighbors import NearestNeighbors

from cellvae.errors import InvalidDataError, InvalidOptionError
from cellvae.model import SCVI
from cellvae.train import EarlyStopping
from cellvae.train.callbacks.evaluation.integration_evaluation import IntegrationEvaluation
from cellvae.train.callbacks.evaluation.retrieval_evaluation import RetrievalEvaluation

pytestmark = pytest.mark.trains

N_CELLS = 120


@pytest.fixture
def cells() -> AnnData:
    """Three kinds of cells in two batches; a few have no kind."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 3, N_CELLS)
    means = random.gamma(2.0, 3.0, (3, 12))
    names = np.array(["x", "y", "z"], dtype=object)[kind]
    names[[1, 50]] = None
    obs = pd.DataFrame(
        {"batch": random.choice(["b0", "b1"], N_CELLS), "kind": names},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    return AnnData(random.poisson(means[kind]).astype(np.float32), obs=obs)


def model_of(cells: AnnData) -> Any:
    SCVI.setup_anndata(cells, batch_key="batch")
    torch.manual_seed(0)
    return SCVI(cells, n_hidden=8, n_latent=3, dropout_rate=0.2)


def train(model: Any, *callbacks: pl.Callback, **kwargs: Any) -> None:
    given = {"max_epochs": 3, "batch_size": 32, "accelerator": "cpu", "seed": 1} | kwargs
    model.train(callbacks=list(callbacks), enable_progress_bar=False, **given)


def weights(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.module.state_dict().values()])


def precision_by_hand(latent: np.ndarray, labels: np.ndarray, k: int, metric: str) -> float:
    """Share of the k nearest other cells with the label of a cell, with scikit-learn's search."""
    search = NearestNeighbors(n_neighbors=k + 1, metric=metric).fit(latent)
    found = search.kneighbors(latent, return_distance=False)
    around = np.array([row[row != cell][:k] for cell, row in enumerate(found)])
    return float(np.mean(labels[around] == labels[:, None]))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_scores_are_those_of_the_latents_of_the_epoch(cells: AnnData, metric: Any) -> None:
    model = model_of(cells)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    evaluation = RetrievalEvaluation(label_key="kind", k=7, metric=metric)
    train(model, evaluation)
    labelled = np.flatnonzero(cells.obs["kind"].notna())
    labels = cells.obs["kind"].to_numpy()[labelled]

    def by_hand() -> float:
        latent = model.get_latent_representation(cells, indices=labelled)
        return precision_by_hand(latent.astype(np.float64), labels, 7, metric)

    assert evaluation.scores[-1]["precision@7"] == pytest.approx(by_hand(), abs=2e-3)
    assert model.history["eval/precision@7"].index.tolist() == [0, 1, 2]
    logged = model.history["eval/mrr"].iloc[-1, 0]
    assert logged == pytest.approx(evaluation.scores[-1]["mrr"], rel=1e-6)
    model.module.load_state_dict(before)
    assert evaluation.baseline_scores["precision@7"] == pytest.approx(by_hand(), abs=2e-3)


def test_all_metrics_are_logged_under_the_names_told_before() -> None:
    assert RetrievalEvaluation(label_key="kind").produced_metrics() == [
        *("eval/precision@20", "eval/recall@20", "eval/map@20", "eval/ndcg@20", "eval/hit@20"),
        *("eval/mrr", "eval/r_precision", "eval/f1@20", "eval/dcg@20"),
    ]


def test_training_is_not_changed_by_one_bit(cells: AnnData) -> None:
    runs = []
    for callbacks in ((), (RetrievalEvaluation("validation", "train", label_key="kind"),)):
        model = model_of(cells)
        torch.manual_seed(5)
        train(model, *callbacks, check_val_every_n_epoch=1)
        table = model.history.table
        kept = table[[name for name in table.columns if not name.startswith("eval/")]]
        runs.append((weights(model), kept, torch.rand(3)))
    assert torch.equal(runs[0][0], runs[1][0])
    pd.testing.assert_frame_equal(runs[0][1], runs[1][1], check_exact=True)
    assert torch.equal(runs[0][2], runs[1][2])


def test_queries_are_matched_with_the_index_and_not_with_themselves(cells: AnnData) -> None:
    same = RetrievalEvaluation(range(2, 40), range(2, 40), label_key="kind", k=10, n_examples=38)
    train(model_of(cells), same, max_epochs=1)
    for example in (*same.examples, *same.baseline_examples):
        assert example["name"] not in [match["name"] for match in example["matches"]]
        assert len(example["matches"]) == 10
        near = [match["similarity"] for match in example["matches"]]
        assert near == sorted(near, reverse=True)
        assert example["label"] == cells.obs["kind"][example["name"]]
    parts = RetrievalEvaluation("validation", "train", label_key="kind", k=10)
    model = model_of(cells)
    train(model, parts, max_epochs=1)
    train_names = set(cells.obs_names[model.train_indices])
    assert {m["name"] for e in parts.examples for m in e["matches"]} <= train_names
    kept = RetrievalEvaluation(label_key="kind", exclude_self=False, metrics=["hit", "mrr"], k=1)
    train(model_of(cells), kept, max_epochs=1)
    assert kept.scores[0] == {"epoch": 0, "hit@1": 1.0, "mrr": 1.0}


def test_cells_of_the_batch_of_the_query_can_be_left_out(cells: AnnData) -> None:
    across = RetrievalEvaluation(label_key="kind", exclude_same_batch="batch", n_examples=200)
    train(model_of(cells), across, max_epochs=1)
    batch = cells.obs["batch"]
    assert len(across.examples) == N_CELLS - 2
    for example in across.examples:
        assert all(batch[m["name"]] != batch[example["name"]] for m in example["matches"])


def test_other_cells_are_queries_and_further_metrics_are_the_users_own(cells: AnnData) -> None:
    others = cells[::2, ::-1].copy()
    custom = {
        "shares": lambda relevant, n_relevant: relevant.mean(),
        "above": (lambda relevant, n_relevant, least: (n_relevant > least).mean(), {"least": 1e9}),
    }
    evaluation = RetrievalEvaluation(
        others, label_key="kind", index="train", metrics="precision", k=5, custom=custom
    )
    model = model_of(cells)
    train(model, evaluation, max_epochs=1)
    row = evaluation.scores[0]
    assert row["shares"] == row["precision@5"]
    assert row["above"] == 0
    assert list(model.history.table.filter(like="eval/")) == [
        *("eval/precision@5", "eval/shares", "eval/above"),
    ]
    assert evaluation.examples[0]["name"] == "cell0"


@pytest.mark.parametrize("stopper_first", [True, False])
def test_it_is_monitored_in_the_same_epoch_whatever_the_order(
    cells: AnnData, stopper_first: bool
) -> None:
    evaluation = RetrievalEvaluation(label_key="kind")
    stop = EarlyStopping("eval/ndcg@20", patience=50)
    model = model_of(cells)
    train(model, *((stop, evaluation) if stopper_first else (evaluation, stop)), max_epochs=5)
    scores = [row["ndcg@20"] for row in evaluation.scores]
    assert model.training_report.best_epoch == int(np.argmax(scores))


class Crash(pl.Callback):
    """Fails in an epoch, as a full disk would."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise OSError("disk full")


def test_a_run_that_crashed_has_the_scores_of_one_that_did_not(
    cells: AnnData, tmp_path: Path
) -> None:
    def run(epoch: int | None, **kwargs: Any) -> tuple[Any, list[Any]]:
        model = model_of(cells)
        integration = IntegrationEvaluation("batch", "kind", every_n_epochs=2)
        retrieval = RetrievalEvaluation(label_key="kind")
        try:
            train(model, Crash(epoch), integration, retrieval, max_epochs=5, **kwargs)
        except OSError as error:
            assert str(error) == "disk full"
        return model, [integration.state_dict(), retrieval.state_dict()]

    whole, first = run(None)
    run(3, resume="auto", run_dir=tmp_path)
    again, second = run(None, resume="auto", run_dir=tmp_path)
    assert again.training_report.resumed_epoch == 3
    assert torch.equal(weights(whole), weights(again))
    pd.testing.assert_frame_equal(whole.history.table, again.history.table, check_exact=True)
    assert first == second


def test_its_state_is_plain(cells: AnnData) -> None:
    evaluation = RetrievalEvaluation(label_key="kind")
    train(model_of(cells), evaluation, max_epochs=1)
    file = io.BytesIO()
    torch.save(evaluation.state_dict(), file)
    file.seek(0)
    other = RetrievalEvaluation(label_key="kind")
    other.load_state_dict(torch.load(file, weights_only=True))
    assert (other.scores, other.examples) == (evaluation.scores, evaluation.examples)


def test_what_cannot_be_scored_is_refused_before_training(cells: AnnData) -> None:
    with pytest.raises(InvalidOptionError, match="Did you mean 'recall'"):
        RetrievalEvaluation(label_key="kind", metrics=["recal"])
    with pytest.raises(InvalidOptionError, match="'cosine' or 'euclidean'; got 'l1'"):
        RetrievalEvaluation(label_key="kind", metric="l1")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="metrics of different names"):
        RetrievalEvaluation(label_key="kind", metrics=["mrr"], custom={"mrr": lambda r, n: 0.0})
    where = {v: np.flatnonzero(cells.obs["kind"] == v) for v in ("x", "y")}
    with pytest.raises(InvalidDataError, match="queries and indexed cells share; got none"):
        train(model_of(cells), RetrievalEvaluation(where["x"], where["y"], label_key="kind"))
    with pytest.raises(InvalidDataError, match="with a label in 'kind'.*got none of 2"):
        train(model_of(cells), RetrievalEvaluation([1, 50], label_key="kind"))


def test_real_cells_find_cells_of_their_type(shared_data: Path) -> None:
    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")
    chosen = np.random.default_rng(0).permutation(adata.n_obs)[:400]
    adata = adata[np.sort(chosen)].copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=32)
    evaluation = RetrievalEvaluation(label_key="cell_type", exclude_same_batch="batch")
    train(model, evaluation, max_epochs=6, plan_kwargs={"lr": 5e-3})
    last, before = evaluation.scores[-1], evaluation.baseline_scores
    assert all(0 <= v <= 1 for name, v in last.items() if name not in ("epoch", "dcg@20"))
    for name in ("precision@20", "map@20", "ndcg@20", "r_precision"):
        assert last[name] > before[name], name
    # By chance it would be the mean share of a cell's own type.
    shares = adata.obs["cell_type"].value_counts(normalize=True)
    assert last["precision@20"] > (shares**2).sum() + 0.2

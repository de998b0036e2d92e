"""SCANVI: which labels it knows, what it learns from them, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.errors import (
    DataMismatchError,
    InvalidDataError,
    InvalidOptionError,
    NotTrainedError,
    TrainingWarning,
    UnknownOptionError,
)
from cellvae.model import SCANVI, SCVI

pytestmark = pytest.mark.trains

QUICK = {"max_epochs": 2, "accelerator": "cpu", "seed": 0, "enable_progress_bar": False}


@pytest.fixture
def labelled(cells: Callable[..., AnnData]) -> AnnData:
    """Cells of three kinds that differ strongly, a third of them without a label."""
    adata = cells(150)
    kind = np.arange(150) % 3
    random = np.random.default_rng(1)
    means = random.gamma(1.0, 8.0, (3, adata.n_vars))
    adata.X = random.poisson(means[kind]).astype(np.float32)
    adata.obs["kind"] = np.array(["T", "B", "NK"])[kind]
    adata.obs["seen"] = np.where(random.random(150) < 2 / 3, adata.obs["kind"], "Unknown")
    return adata


def made(adata: AnnData, unlabeled: str = "Unknown", key: str = "seen", **config: Any) -> SCANVI:
    SCANVI.setup_anndata(adata, key, unlabeled, batch_key="batch")
    torch.manual_seed(0)
    return SCANVI(adata, **{"n_hidden": 16, "n_latent": 4, **config})


def test_labels_leave_out_the_unlabelled_category_wherever_it_stands(labelled: AnnData) -> None:
    model = made(labelled)
    # As in scvi-tools the unlabelled category and the last one change places.
    assert model.registration.categories("labels") == ("B", "NK", "T", "Unknown")
    assert model.labels == ("B", "NK", "T") and model.n_labels == 3
    seen = labelled.obs["seen"].to_numpy()
    np.testing.assert_array_equal(model.unlabeled_indices, np.flatnonzero(seen == "Unknown"))
    np.testing.assert_array_equal(model.labeled_indices, np.flatnonzero(seen != "Unknown"))
    middle = made(labelled, "NK", "kind")
    assert middle.registration.categories("labels") == ("B", "T", "NK")
    assert middle.unlabeled_category == "NK"


def test_nobody_needs_to_be_unlabelled(labelled: AnnData) -> None:
    model = made(labelled, "nobody", "kind")
    assert model.labels == ("B", "NK", "T")
    assert not len(model.unlabeled_indices)
    model.train(**QUICK)
    assert set(model.predict()) <= {"B", "NK", "T"}


@pytest.mark.parametrize("others", ["unlabelled", "held out", "drawn"])
def test_one_labelled_cell_in_a_step_is_learned_from(labelled: AnnData, others: str) -> None:
    labels = labelled.obs["kind"].to_numpy(dtype=object)
    known = {"unlabelled": [0], "held out": [0, 1, 2, 3, 4, 5], "drawn": [0, 3, 6]}[others]
    keep = np.isin(np.arange(150), known)
    labelled.obs["seen"] = np.where(keep, labels, "Unknown")
    kwargs: dict[str, Any] = {**QUICK, "max_epochs": 6, "check_val_every_n_epoch": 1}
    kwargs["plan_kwargs"] = {"lr": 0.02}
    if others == "held out":
        parts = [np.r_[0, 6:150], np.arange(1, 6)]
        kwargs["datasplitter_kwargs"] = {"external_indexing": parts}
    else:
        kwargs |= {"train_size": 1.0, "n_samples_per_label": 1}
    model = made(labelled, dropout_rate=0.0)
    model.train(**kwargs)
    table = model.history.table
    assert np.isfinite(table.filter(like="train").to_numpy()).all()
    loss = table["train_classification_loss"]
    assert loss.iloc[-1] < loss.iloc[0] or len(model.labels) == 1
    assert table["train_accuracy"].iloc[-1] == 1
    assert ("validation_accuracy" in table) == (others == "held out")


def test_missing_labels_are_unknown_ones(labelled: AnnData) -> None:
    whole = made(labelled)
    labelled.obs["holes"] = labelled.obs["seen"].where(labelled.obs["seen"] != "Unknown")
    holes = made(labelled, key="holes")
    assert holes.labels == whole.labels
    np.testing.assert_array_equal(holes.training_labels(), whole.training_labels())


def test_numbers_can_be_labels(labelled: AnnData) -> None:
    labelled.obs["number"] = np.arange(150) % 3 - 1
    model = made(labelled, -1, "number")  # type: ignore[arg-type]
    assert model.labels == (1, 0)
    model.train(**QUICK)
    assert model.predict().dtype.kind == "i"


def test_without_any_label_there_is_nothing_to_learn(labelled: AnnData) -> None:
    labelled.obs["none"] = "Unknown"
    with pytest.raises(InvalidDataError, match="no other value than 'Unknown'"):
        SCANVI.setup_anndata(labelled, "none", "Unknown")


def test_labels_of_cells_without_one_are_told(labelled: AnnData) -> None:
    model = made(labelled)
    with pytest.raises(NotTrainedError):
        model.predict()
    model.train(**{**QUICK, "max_epochs": 40}, plan_kwargs={"lr": 0.01}, batch_size=32)
    hidden = model.unlabeled_indices
    told = model.predict(indices=hidden)
    assert (told == labelled.obs["kind"].to_numpy()[hidden]).mean() > 0.95
    chances = model.predict(soft=True, indices=hidden[::-1])
    assert chances.columns.tolist() == ["B", "NK", "T"]
    assert chances.index.tolist() == labelled.obs_names[hidden[::-1]].tolist()
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    assert (chances.idxmax(axis=1).to_numpy()[::-1] == told).all()
    torch.manual_seed(0)
    draws = [model.predict(soft=True, use_posterior_mean=False) for _ in range(2)]
    assert not draws[0].equals(draws[1])


def test_cells_without_a_column_of_labels_can_be_told(labelled: AnnData) -> None:
    model = made(labelled)
    model.train(**QUICK)
    bare = labelled.copy()
    del bare.obs["seen"]
    np.testing.assert_array_equal(model.predict(bare), model.predict())
    odd = labelled.copy()
    odd.obs["seen"] = "Platelet"
    with pytest.raises(DataMismatchError, match="Platelet"):
        model.predict(odd)


def test_metrics_of_labels_are_those_of_predict(labelled: AnnData) -> None:
    model = made(labelled, dropout_rate=0.0)
    model.train(**{**QUICK, "max_epochs": 3}, check_val_every_n_epoch=1, batch_size=32)
    cells = np.intersect1d(model.validation_indices, model.labeled_indices)
    truth = labelled.obs["kind"].to_numpy()[cells]
    chances = model.predict(soft=True, indices=cells)
    last = {name: model.history[name].iloc[-1, 0] for name in model.history}
    right = model.predict(indices=cells) == truth
    assert last["validation_accuracy"] == pytest.approx(right.mean())
    loss = -np.log([chances.loc[c, t] for c, t in zip(chances.index, truth, strict=True)]).mean()
    assert last["validation_classification_loss"] == pytest.approx(loss, rel=1e-4)
    for split in ("train", "validation"):
        assert 0 <= last[f"{split}_f1_score"] <= 1 and 0 <= last[f"{split}_calibration_error"] <= 1


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("validation_accuracy", "max"),
        ("validation_f1_score", "max"),
        ("validation_classification_loss", "min"),
        ("validation_calibration_error", "min"),
    ],
)
def test_metrics_can_be_monitored_in_the_right_direction(
    labelled: AnnData, monitor: str, mode: str
) -> None:
    model = made(labelled)
    model.train(**{**QUICK, "max_epochs": 6}, early_stopping=monitor, plan_kwargs={"lr": 0.01})
    values = model.history[monitor].iloc[:, 0]
    best = values.idxmax() if mode == "max" else values.idxmin()
    assert model.training_report.best_epoch == best


def test_the_weight_of_the_labels_is_the_users(labelled: AnnData) -> None:
    losses = {}
    for ratio in (0, 1, 50):
        model = made(labelled, dropout_rate=0.0)
        kwargs = {**QUICK, "max_epochs": 1, "batch_size": 150, "train_size": 1.0}
        model.train(**kwargs, plan_kwargs={"classification_ratio": ratio})
        losses[ratio] = model.history["train_loss"].iloc[0, 0]
    assert losses[50] - losses[0] == pytest.approx(50 * (losses[1] - losses[0]), rel=1e-3)
    with pytest.raises(UnknownOptionError, match="classification_ratio"):
        model.train(**QUICK, plan_kwargs={"classification_ration": 1})
    with pytest.raises(InvalidOptionError, match="classification_ratio to be at least 0"):
        model.train(**QUICK, plan_kwargs={"classification_ratio": -1})


def test_words_of_labels_are_no_words_of_scvi(labelled: AnnData) -> None:
    SCVI.setup_anndata(labelled)
    model = SCVI(labelled, n_hidden=8)
    with pytest.raises(UnknownOptionError, match="n_samples_per_label"):
        model.train(**QUICK, n_samples_per_label=3)
    with pytest.raises(UnknownOptionError, match="classification_ratio"):
        model.train(**QUICK, plan_kwargs={"classification_ratio": 3})


class StopAfter(pl.Callback):
    """Ctrl-C after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch > self.epoch:
            raise KeyboardInterrupt


def test_labels_that_only_validation_cells_have_are_said_not_to_be_learned(
    labelled: AnnData,
) -> None:
    model = made(labelled)
    split = [model.unlabeled_indices, model.labeled_indices, []]
    with pytest.warns(TrainingWarning, match="No training cell has a label"):
        model.train(**QUICK, datasplitter_kwargs={"external_indexing": split})


def test_samples_of_labels_are_the_same_with_callbacks_and_after_a_stop(
    labelled: AnnData, tmp_path: Path
) -> None:
    from cellvae.train import SaveCheckpoint

    kwargs = {**QUICK, "max_epochs": 4, "n_samples_per_label": 5, "batch_size": 32}
    plain, watched, stopped = (made(labelled) for _ in range(3))
    plain.train(**kwargs)
    watched.train(
        **kwargs,
        callbacks=[
            SaveCheckpoint(tmp_path / "c", monitor="train_accuracy", load_best_on_end=False)
        ],
    )
    stopped.train(**kwargs, resume="auto", run_dir=tmp_path / "run", callbacks=[StopAfter(1)])
    again = made(labelled)
    again.train(**kwargs, resume="auto", run_dir=tmp_path / "run")
    every = made(labelled)
    every.train(**{**kwargs, "n_samples_per_label": None})
    ours = plain.module.state_dict()
    for other, same in ((watched, True), (again, True), (every, False)):
        theirs = other.module.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours) == same


def test_weights_of_a_trained_scvi_come_along(labelled: AnnData) -> None:
    SCVI.setup_anndata(labelled, batch_key="batch", labels_key="seen")
    torch.manual_seed(0)
    base = SCVI(labelled, n_hidden=16, n_latent=4, dispersion="gene-label")
    with pytest.raises(NotTrainedError):
        SCANVI.from_scvi_model(base, "Unknown")
    base.train(**QUICK)
    before = {k: v.clone() for k, v in base.module.state_dict().items()}
    model = SCANVI.from_scvi_model(base, "Unknown", linear_classifier=True)
    own = model.module.state_dict()
    for name, value in before.items():
        if name == "px_r":
            order = [base.registration.categories("labels").index(v) for v in model.labels]
            value = value[:, order]
        assert torch.equal(own[name], value), name
    assert model.config.dispersion == "gene-label" and model.config.linear_classifier
    model.train(accelerator="cpu", seed=0, enable_progress_bar=False)
    assert model.history.epochs == list(range(10))
    assert all(torch.equal(v, before[k]) for k, v in base.module.state_dict().items())


def test_what_a_scvi_cannot_give_is_refused(labelled: AnnData) -> None:
    SCVI.setup_anndata(labelled, batch_key="batch")
    base = SCVI(labelled, n_hidden=16, n_latent=4)
    base.train(**QUICK)
    with pytest.raises(InvalidOptionError, match="Expected labels_key"):
        SCANVI.from_scvi_model(base, "Unknown")
    with pytest.raises(InvalidOptionError, match="n_latent to be that of the SCVI, 4; got 5"):
        SCANVI.from_scvi_model(base, "Unknown", "seen", n_latent=5)
    with pytest.raises(UnknownOptionError, match="linear_classifier"):
        SCANVI.from_scvi_model(base, "Unknown", "seen", linear_clasifier=True)
    with pytest.raises(InvalidOptionError, match="got str"):
        SCANVI.from_scvi_model("model", "Unknown")  # type: ignore[arg-type]
    other = labelled[:, ::-1].copy()
    model = SCANVI.from_scvi_model(base, "Unknown", "seen", adata=other)
    assert model.registration.genes == base.registration.genes
    base.minify_adata()
    with pytest.raises(DataMismatchError, match="minified"):
        SCANVI.from_scvi_model(base, "Unknown", "seen")


def test_labels_survive_saving(labelled: AnnData, tmp_path: Path) -> None:
    model = made(labelled, classifier_parameters={"n_layers": 2, "n_hidden": 8})
    model.train(**QUICK)
    model.save(tmp_path / "model", save_anndata=True)
    for again in (SCANVI.load(tmp_path / "model"), cellvae.load(tmp_path / "model", labelled)):
        assert again.labels == model.labels and again.unlabeled_category == "Unknown"
        pd.testing.assert_frame_equal(again.predict(soft=True), model.predict(soft=True))


def test_minified_cells_are_told_the_same_labels(labelled: AnnData) -> None:
    model = made(labelled)
    model.train(**QUICK)
    before = model.predict(soft=True)
    model.minify_adata()
    np.testing.assert_allclose(model.predict(soft=True), before, rtol=1e-4, atol=1e-6)


def test_unknown_labels_have_the_mean_dispersion(labelled: AnnData) -> None:
    model = made(labelled, dispersion="gene-label", y_prior=(0.5, 0.25, 0.25))
    batch = model.rows_of_model().take(torch.as_tensor(model.unlabeled_indices[:2]))
    found = model.module.log_dispersion(batch, None)
    expected = model.module.px_r @ torch.tensor([0.5, 0.25, 0.25])
    torch.testing.assert_close(found, expected.expand(2, -1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"latent_distribution": "ln"}, "latent_distribution to be 'normal'"),
        ({"classifier_parameters": {"n_layer": 1}}, "Did you mean 'n_layers'"),
        ({"classifier_parameters": {"logits": "no"}}, "logits"),
        ({"classifier_parameters": {"logit": False}}, "Did you mean 'logits'"),
        ({"classifier_parameters": {"dropout_rate": 2}}, "dropout_rate"),
        ({"y_prior": (0.5, 0.6, 0.1)}, "sum to 1"),
        ({"y_prior": (0.5, 0.5)}, "each of the 3 labels"),
    ],
)
def test_bad_options_are_refused(labelled: AnnData, config: Any, message: str) -> None:
    with pytest.raises((InvalidOptionError, UnknownOptionError), match=message):
        made(labelled, **config)


def test_blood_cells_are_told_apart(shared_data: Path) -> None:
    whole = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")
    cells = whole[::10].copy()
    truth = cells.obs["cell_type"].astype(str).to_numpy()
    known = np.arange(len(truth)) % 5 == 0
    cells.obs["seen"] = np.where(known, truth, "Unknown")
    SCANVI.setup_anndata(cells, "seen", "Unknown", batch_key="batch")
    torch.manual_seed(0)
    model = SCANVI(cells)
    kwargs = {**QUICK, "max_epochs": 20, "n_samples_per_label": 50}
    model.train(**kwargs, plan_kwargs={"lr": 3e-3})
    assert (model.predict() == truth)[~known].mean() > 0.85

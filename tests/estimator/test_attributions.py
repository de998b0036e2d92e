"""Attributions of predicted labels to genes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import cellvae
from cellvae.errors import DataMismatchError, InvalidOptionError, UnknownOptionError
from cellvae.model import SCANVI

pytestmark = pytest.mark.trains

pytest.importorskip("captum")


@pytest.fixture(scope="module", params=["dense", "sparse"])
def model(request: pytest.FixtureRequest) -> SCANVI:
    adata = cellvae.data.synthetic_iid(batch_size=40, n_genes=15)
    adata.X = sparse.csr_matrix(adata.X) if request.param == "sparse" else np.asarray(adata.X)
    SCANVI.setup_anndata(adata, "labels", "label_2", batch_key="batch")
    torch.manual_seed(0)
    model = SCANVI(adata, n_hidden=16, n_latent=4, encode_covariates=request.param == "dense")
    kwargs: dict[str, Any] = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False}
    model.train(max_epochs=5, **kwargs)
    return model


def differences(model: SCANVI) -> np.ndarray:
    """Logits of all labels less those of cells without any count, [cells, labels]."""
    assert model.adata is not None
    with torch.inference_mode():
        batch = model.rows_for(None).take(torch.arange(model.adata.n_obs))
        empty = batch._replace(counts=torch.zeros_like(batch.counts))
        module = model.module.eval()
        return (module.classify(batch) - module.classify(empty)).numpy()


def test_they_sum_up_to_the_difference_of_the_scores(model: SCANVI) -> None:
    adata = model.adata
    assert adata is not None
    labels, table = model.predict(ig_interpretability=True, ig_args={"n_steps": 300})
    np.testing.assert_array_equal(labels, model.predict())
    assert table["attribution_mean"].is_monotonic_decreasing
    assert (table["cells"] == adata.n_obs).all() and (table["modality"] == "None").all()
    np.testing.assert_array_equal(adata.var_names[table["feature_idx"]], table["feature"])
    codes = [model.labels.index(label) for label in labels]
    difference = differences(model)[np.arange(adata.n_obs), codes]
    assert table["attribution_mean"].sum() == pytest.approx(difference.mean(), rel=2e-3)
    for cell in (0, 7):
        _, of_one = model.predict(
            indices=[cell], ig_interpretability=True, ig_args={"n_steps": 300}
        )
        assert of_one["attribution_mean"].sum() == pytest.approx(difference[cell], rel=2e-2)
        assert (of_one["attribution_std"] == 0).all()


def test_batches_and_arguments_of_captum_are_the_users(model: SCANVI) -> None:
    kwargs: Any = {"n_steps": 20, "method": "riemann_trapezoid", "internal_batch_size": 128}
    whole, parts = (
        model.predict(soft=True, batch_size=size, ig_interpretability=True, ig_args=kwargs)
        for size in (200, 7)
    )
    np.testing.assert_allclose(whole[0], model.predict(soft=True), atol=1e-6)
    one, two = (found[1].set_index("feature").sort_index() for found in (whole, parts))
    for column in ("attribution_mean", "attribution_std"):
        np.testing.assert_allclose(one[column], two[column], rtol=1e-3, atol=1e-5)
    shifted = {"baselines": torch.ones(1, 15)}
    _, other = model.predict(ig_interpretability=True, ig_args=shifted)
    assert not np.allclose(other.set_index("feature").sort_index()["attribution_mean"], 0)


def test_the_network_is_left_as_it_was(model: SCANVI) -> None:
    model.module.train()
    weights = [*model.module.parameters()]
    for weight in weights:
        weight.grad = None
    weights[0].requires_grad_(False)
    model.predict(indices=range(5), ig_interpretability=True)
    assert model.module.training
    assert all(weight.grad is None for weight in weights)
    assert [weight.requires_grad for weight in weights] == [False] + [True] * (len(weights) - 1)
    weights[0].requires_grad_(True)


def test_what_cannot_be_attributed_is_refused(
    model: SCANVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownOptionError, match="Did you mean 'n_steps'"):
        model.predict(ig_interpretability=True, ig_args={"n_step": 3})
    with pytest.raises(UnknownOptionError, match="'target'"):
        model.predict(ig_interpretability=True, ig_args={"target": 0})
    with pytest.raises(InvalidOptionError, match="ig_interpretability=True together"):
        model.predict(ig_args={"n_steps": 3})  # type: ignore[call-overload]
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(InvalidOptionError, match=r'pip install "cellvae\[interpretability\]"'):
        model.predict(ig_interpretability=True)


def test_minified_cells_have_no_counts_to_attribute_to() -> None:
    adata = cellvae.data.synthetic_iid(batch_size=20, n_genes=8)
    SCANVI.setup_anndata(adata, "labels", "label_2")
    model = SCANVI(adata, n_hidden=4)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    model.minify_adata()
    with pytest.raises(DataMismatchError):
        model.predict(ig_interpretability=True)


def test_classifiers_of_probabilities_learn_labels_too(tmp_path: Any) -> None:
    random = np.random.default_rng(0)
    kind = np.arange(150) % 3
    counts = random.poisson(random.gamma(1.0, 8.0, (3, 12))[kind]).astype(np.float32)
    adata = AnnData(counts)
    names = np.array(["T", "B", "NK"])[kind]
    adata.obs["seen"] = np.where(random.random(150) < 0.7, names, "Unknown")
    SCANVI.setup_anndata(adata, "seen", "Unknown")
    torch.manual_seed(0)
    model = SCANVI(
        adata, n_hidden=16, n_latent=4, classifier_parameters={"logits": False}, dropout_rate=0.0
    )
    kwargs: dict[str, Any] = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False}
    model.train(max_epochs=40, plan_kwargs={"lr": 0.01}, check_val_every_n_epoch=1, **kwargs)
    soft = model.predict(soft=True)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-5)
    assert (model.predict() == names).mean() > 0.9
    cells = np.intersect1d(model.validation_indices, model.labeled_indices)
    chances = soft.to_numpy()[cells]
    truth = [model.labels.index(names[cell]) for cell in cells]
    # Probabilities taken for logits, as in scvi-tools.
    expected = np.log(np.exp(chances).sum(axis=1)) - chances[np.arange(len(cells)), truth]
    last = {name: model.history[name].iloc[-1, 0] for name in model.history}
    assert last["validation_classification_loss"] == pytest.approx(expected.mean(), rel=1e-3)
    confidence = chances.max(axis=1)
    right = chances.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * 15) - 1, 0, 14)
    gaps = [abs((right - confidence)[bins == b].sum()) for b in range(15)]
    assert last["validation_calibration_error"] == pytest.approx(sum(gaps) / len(cells), abs=1e-4)
    model.save(tmp_path / "model")
    again = SCANVI.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(again.predict(soft=True), soft)
    assert not again.module.gives_logits

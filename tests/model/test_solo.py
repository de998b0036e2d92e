"""Solo: made of any model of counts, doublets found among known ones, saved without counts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.data.doublets import DOUBLET_NAMES
from cellvae.errors import (
    DataMismatchError,
    InvalidDataError,
    InvalidOptionError,
    NotTrainedError,
    UnknownOptionError,
)
from cellvae.model import PEAKVI, SCANVI, SCVI, SOLO

pytestmark = pytest.mark.trains

QUICK: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0}
N_TYPES, N_GENES = 4, 40


def mixed_cells(rate: float = 0.15, n: int = 500, seed: int = 0) -> AnnData:
    """Cells of four types in two batches, the last of which are sums of two of one batch."""
    random = np.random.default_rng(seed)
    programs = random.gamma(0.3, 8.0, (N_TYPES, N_GENES))
    n_doublets = round(rate * n)
    kinds = random.integers(N_TYPES, size=(n, 2))
    counts = random.poisson(programs[kinds[:, 0]] * random.uniform(0.7, 1.3, (n, 1)))
    counts[-n_doublets:] += random.poisson(programs[kinds[-n_doublets:, 1]])
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(random.choice(["b0", "b1"], n)),
            "label": pd.Categorical([f"t{kind}" for kind in kinds[:, 0]]),
            "donor": pd.Categorical(random.choice(["d0", "d1"], n)),
            "age": random.normal(size=n),
            "doublet": np.arange(n) >= n - n_doublets,
        },
        index=[f"cell{i}" for i in range(n)],
    )
    return AnnData(counts.astype(np.float32), obs=obs)


@pytest.fixture(scope="module")
def vae() -> SCVI:
    adata = mixed_cells()
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, n_latent=5, n_hidden=32)
    model.train(max_epochs=40, plan_kwargs={"lr": 5e-3}, **QUICK)
    return model


@pytest.fixture(scope="module")
def solo(vae: SCVI) -> SOLO:
    torch.manual_seed(0)
    model = SOLO.from_scvi_model(vae, n_hidden=32)
    model.train(max_epochs=60, **QUICK)
    return model


def test_progress_shows_the_loss_since_there_is_no_elbo(
    vae: SCVI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    model = SOLO.from_scvi_model(vae, n_hidden=8)
    model.train(max_epochs=2, accelerator="cpu", seed=0, check_val_every_n_epoch=1)
    shown = capsys.readouterr().err
    losses = [model.history[name].iloc[-1, 0] for name in ("train_loss", "validation_loss")]
    assert "Epoch 2/2 100%" in shown
    assert "loss train {:.2f}, validation {:.2f}".format(*losses) in shown
    assert "ELBO" not in shown


def covered(model: SOLO, vae: Any) -> None:
    """Whether the features are latent and log library size of the cells, in their order."""
    adata: Any = model.adata
    n = vae.adata.n_obs
    np.testing.assert_allclose(adata.X[:n, :-1], vae.get_latent_representation(), atol=1e-5)
    sizes = np.log(vae.get_latent_library_size())
    np.testing.assert_allclose(adata.X[:n, -1:], sizes, atol=1e-5)
    assert [*adata.obs_names[:n]] == [*vae.adata.obs_names]
    assert adata.obs_names[n] == "sim_doublet_0"


def test_features_are_those_of_all_batches_with_doublets_within_each(vae: SCVI) -> None:
    model = SOLO.from_scvi_model(vae)
    covered(model, vae)
    obs = model.adata.obs  # type: ignore[union-attr]
    assert (obs[DOUBLET_NAMES.simulated] == "doublet").sum() == 1000
    doublets = obs[obs[DOUBLET_NAMES.simulated] == "doublet"]
    batch = vae.adata.obs["batch"].to_numpy()  # type: ignore[union-attr]
    for parent in (DOUBLET_NAMES.first, DOUBLET_NAMES.second):
        assert (batch[doublets[parent]] == doublets[DOUBLET_NAMES.batch]).all()
    made = SOLO.create_doublets(vae.adata_manager, 2)
    latent = vae.get_latent_representation(made)
    np.testing.assert_allclose(model.adata.X[500:, :-1], latent, atol=1e-5)  # type: ignore[union-attr]


def test_a_model_of_one_batch_has_the_doublets_of_that_batch(vae: SCVI) -> None:
    whole, part = (SOLO.from_scvi_model(vae, restrict_to_batch=b) for b in (None, "b1"))
    n = int((vae.adata.obs["batch"] == "b1").sum())  # type: ignore[union-attr]
    assert part.adata.n_obs == 3 * n  # type: ignore[union-attr]
    np.testing.assert_allclose(part.adata.X[n:], whole.adata.X[-2 * n :], atol=1e-5)  # type: ignore[union-attr]
    names = part.adata.obs_names[:n]  # type: ignore[union-attr]
    first = names[part.adata.obs[DOUBLET_NAMES.first].iloc[-1]]  # type: ignore[union-attr]
    assert vae.adata.obs.loc[first, "batch"] == "b1"  # type: ignore[union-attr]
    with pytest.raises(InvalidOptionError, match="one of 'b1', 'b0'|one of 'b0', 'b1'"):
        SOLO.from_scvi_model(vae, restrict_to_batch="b2")


def test_models_with_covariates_labels_and_saved_ones_are_read(tmp_path: Path) -> None:
    adata = mixed_cells(n=120)
    setup = {
        "batch_key": "batch",
        "labels_key": "label",
        "unlabeled_category": "t0",
        "categorical_covariate_keys": ["donor"],
        "continuous_covariate_keys": ["age"],
    }
    SCANVI.setup_anndata(adata, **setup)
    config = {"encode_covariates": True, "use_observed_lib_size": False}
    vae = SCANVI(adata, n_latent=3, n_hidden=8, **config)
    with pytest.raises(NotTrainedError):
        SOLO.from_scvi_model(vae)
    vae.train(max_epochs=1, **QUICK)
    covered(SOLO.from_scvi_model(vae, doublet_ratio=0.5), vae)
    vae.save(tmp_path, save_anndata=True)
    loaded: Any = cellvae.load(tmp_path)
    model = SOLO.from_scvi_model(loaded)
    covered(model, vae)
    other = SOLO.from_scvi_model(vae, adata[:50, ::-1].copy())
    np.testing.assert_allclose(other.adata.X[:50], model.adata.X[:50], atol=1e-5)  # type: ignore[union-attr]


def test_other_models_and_cells_without_counts_are_refused(vae: SCVI) -> None:
    adata = mixed_cells(n=60)
    PEAKVI.setup_anndata(adata)
    with pytest.raises(InvalidOptionError, match="a trained SCVI, SCANVI or LinearSCVI"):
        SOLO.from_scvi_model(PEAKVI(adata))  # type: ignore[arg-type]
    with pytest.raises(UnknownOptionError, match="n_hidden"):
        SOLO.from_scvi_model(vae, n_hiden=3)
    other = SCVI(vae.adata.copy(), n_latent=2, n_hidden=4)  # type: ignore[union-attr]
    other.train(max_epochs=1, **QUICK)
    other.minify_adata()
    with pytest.raises(DataMismatchError, match="counts"):
        SOLO.from_scvi_model(other)


def test_doublets_among_cells_score_higher(solo: SOLO, vae: SCVI) -> None:
    from sklearn.metrics import average_precision_score

    truth = vae.adata.obs["doublet"].to_numpy()  # type: ignore[union-attr]
    table: Any = solo.predict()
    assert [*table] == ["doublet", "singlet"]
    assert [*table.index] == [*vae.adata.obs_names]  # type: ignore[union-attr]
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
    assert average_precision_score(truth, table["doublet"]) > 0.6  # 0.15 by chance
    everything: Any = solo.predict(include_simulated_doublets=True)
    assert len(everything) == 1500
    logits = solo.predict(return_logits=True)
    np.testing.assert_allclose(torch.softmax(torch.tensor(logits.to_numpy()), 1), table, atol=1e-6)
    hard: Any = solo.predict(soft=False)
    assert (hard == table.idxmax(axis=1)).all()


def test_as_many_doublets_are_called_as_are_expected_in_each_batch(solo: SOLO, vae: SCVI) -> None:
    batch = vae.adata.obs["batch"]  # type: ignore[union-attr]
    calls = solo.call_doublets(expected_rate={"b0": 0.1, "b1": 0.2})
    called = calls["doublet_call"] == "doublet"
    for name, rate in (("b0", 0.1), ("b1", 0.2)):
        of_batch = (batch == name).to_numpy()
        assert called[of_batch].sum() == round(rate * of_batch.sum())
        scores = calls["doublet_score"][of_batch]
        assert scores[called[of_batch]].min() >= scores[~called[of_batch]].max()
    assert calls.attrs["doublet_rate"] == {"b0": 0.1, "b1": 0.2}
    # The score is of two classifiers: the network, and trees that did not see the cell.
    network = solo.predict(return_logits=True)
    logit = (network["doublet"] - network["singlet"]).to_numpy(dtype=np.float64)
    both = np.log(calls["doublet_score"] / (1 - calls["doublet_score"])).to_numpy()
    trees = 2 * both - logit
    assert np.corrcoef(trees, logit)[0, 1] > 0.5
    assert not np.allclose(trees, logit, atol=0.1)
    assert not (solo.call_doublets(0.0)["doublet_call"] == "doublet").any()
    for wrong in (1.5, -0.1, "much", True, {"b0": 0.1}):
        with pytest.raises(InvalidOptionError, match="expected_rate"):
            solo.call_doublets(wrong)  # type: ignore[arg-type]


def test_the_estimated_rate_is_near_the_true_one(solo: SOLO) -> None:
    calls = solo.call_doublets()
    called = (calls["doublet_call"] == "doublet").mean()
    assert called == pytest.approx(0.15, abs=0.06)  # 500 cells
    assert calls["doublet_probability"].between(0, 1).all()
    assert calls["doublet_probability"].mean() == pytest.approx(called, abs=0.06)
    pd.testing.assert_frame_equal(calls, solo.call_doublets())
    assert solo.get_doublet_rate().index.tolist() == ["b0", "b1"]


def test_a_saved_model_needs_its_features_and_no_counts(solo: SOLO, tmp_path: Path) -> None:
    solo.save(tmp_path / "whole", save_anndata=True)
    again: Any = cellvae.load(tmp_path / "whole")
    # pandas 3 reads names of cells back as strings, where they were objects.
    same = {"check_index_type": False}
    pd.testing.assert_frame_equal(again.predict(), solo.predict(), **same)
    pd.testing.assert_frame_equal(again.call_doublets(0.1), solo.call_doublets(0.1), **same)
    solo.save(tmp_path / "bare")
    bare = SOLO.load(tmp_path / "bare")
    with pytest.raises(DataMismatchError):
        bare.predict()
    with pytest.raises(DataMismatchError, match="save_anndata=True"):
        bare.call_doublets()
    bare.adata = solo.adata
    pd.testing.assert_frame_equal(bare.predict(), solo.predict())  # type: ignore[arg-type]


def test_trees_read_components_of_the_counts_where_there_are_such(
    solo: SOLO, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: Any = solo.adata.obsm  # type: ignore[union-attr]
    components = stored["X_pca"]
    assert components.shape == (1500, 20)
    rate, calls = solo.get_doublet_rate(), solo.call_doublets(0.15)
    random = np.random.default_rng(0)
    # The rate reads the first twelve, the ranks all of them.
    others = np.hstack([components[:, :12], random.normal(size=(1500, 8))])
    monkeypatch.setitem(stored, "X_pca", others)
    pd.testing.assert_series_equal(solo.get_doublet_rate(), rate)
    assert not solo.call_doublets(0.15).equals(calls)
    # A model of scvi-tools has the latent alone.
    monkeypatch.delitem(stored, "X_pca")
    latent_alone = solo.call_doublets(0.15)
    assert not latent_alone.equals(calls)
    assert (latent_alone["doublet_call"] == "doublet").sum() == 75


def test_training_stops_early_by_default_as_in_scvi_tools(solo: SOLO) -> None:
    assert solo.training_report.monitor == "validation_loss"  # type: ignore[union-attr]
    defaults = solo.train_defaults({})
    assert defaults["max_epochs"] == 400
    assert defaults["early_stopping_patience"] == 30
    # 1,500 rows in 12 steps an epoch: batch normalisation has settled after 42 epochs.
    assert defaults["early_stopping_warmup_epochs"] == 42
    assert solo.train_defaults({"train_size": 1.0})["early_stopping_monitor"] == "train_loss"
    without = solo.train_defaults({"early_stopping": False})
    assert without == {"max_epochs": 400, "ema_decay": 0.99, "plan_kwargs": {"lr": 0.003}}


def test_the_average_of_the_weights_is_kept_unless_it_is_switched_off(solo: SOLO) -> None:
    def parsed(**kwargs: Any) -> Any:
        return solo.parse_train_kwargs(kwargs)

    assert parsed().options.ema_decay == 0.99
    assert parsed().options.optimizer.lr == 0.003
    assert parsed(plan_kwargs={"lr": 1e-4}).options.optimizer.lr == 1e-4
    assert parsed(lr=1e-4).options.optimizer.lr == 1e-4
    assert parsed(ema_decay=None).options.ema_decay is None
    assert solo.training_report is not None
    assert "nothing watches single steps" in solo.training_report.steps_reason


def test_a_rest_of_one_cell_is_no_problem(vae: SCVI) -> None:
    adata = SOLO.from_scvi_model(vae).adata
    assert adata is not None
    part = adata[370:630].copy()
    SOLO.setup_anndata(part, labels_key=DOUBLET_NAMES.simulated)
    model = SOLO(part)
    split = {"external_indexing": [np.arange(129), np.arange(129, 260)]}
    model.train(max_epochs=2, batch_size=128, datasplitter_kwargs=split, **QUICK)
    assert all(torch.isfinite(p).all() for p in model.module.parameters())


def test_a_run_without_validation_cells_is_followed_by_another(vae: SCVI) -> None:
    model = SOLO.from_scvi_model(vae)
    model.train(max_epochs=2, train_size=1.0, **QUICK)
    model.train(max_epochs=2, **QUICK)
    assert model.history.table.shape[0] == 4
    assert model.train_defaults({})["early_stopping_monitor"] == "train_loss"
    assert model.train_defaults({"reset": True})["early_stopping_monitor"] == "validation_loss"


@pytest.mark.parametrize("wrong", [0, -1, "2", float("nan")])
def test_the_ratio_of_doublets_is_checked(vae: SCVI, wrong: Any) -> None:
    with pytest.raises(InvalidOptionError, match="doublet_ratio to be a number above 0"):
        SOLO.from_scvi_model(vae, doublet_ratio=wrong)


def test_classes_and_features_are_checked() -> None:
    adata = AnnData(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32))
    adata.obs["class"] = pd.Categorical(["one", "other"] * 10)
    SOLO.setup_anndata(adata, labels_key="class")
    with pytest.raises(InvalidDataError, match="the classes 'doublet' and 'singlet'"):
        SOLO(adata)
    adata.X[3, 1] = np.nan
    with pytest.raises(InvalidDataError, match=r"finite values in adata\.X; got 1 that"):
        SOLO.setup_anndata(adata, labels_key="class")

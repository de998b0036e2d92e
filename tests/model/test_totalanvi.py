"""totalANVI: labels, trained weights, MuData, queries that lack proteins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.errors import DataWarning, InvalidOptionError, NotTrainedError
from cellvae.model import TOTALANVI, TOTALVI

N_CELLS, N_GENES, N_PROTEINS = 120, 16, 8
QUICK = {"n_hidden": 16, "n_latent": 3}
LABELS = {"labels_key": "type", "unlabeled_category": "unknown"}
SETUP = {"protein_expression_obsm_key": "proteins", "batch_key": "batch"}


def new_cells(*, all_measured: bool = True) -> AnnData:
    """Cells of three types, which proteins tell apart; half of them have no label."""
    random = np.random.default_rng(0)
    kind = np.arange(N_CELLS) % 3
    proteins = random.poisson(random.gamma(1.0, 40.0, (3, N_PROTEINS))[kind])
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)])
    obs["batch"] = random.choice(["b0", "b1"], N_CELLS)
    obs["truth"] = np.array(["x", "y", "z"])[kind]
    obs["type"] = obs["truth"].where(random.random(N_CELLS) < 0.5, "unknown")
    if not all_measured:
        proteins[(obs["batch"] == "b1").to_numpy(), :2] = 0
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    counts = random.poisson(4.0, (N_CELLS, N_GENES)).astype(np.float32)
    adata = AnnData(counts, obs=obs, var=var)
    names = [f"protein{i}" for i in range(N_PROTEINS)]
    adata.obsm["proteins"] = pd.DataFrame(proteins, index=obs.index, columns=names)
    return adata


def train(model: Any, **kwargs: Any) -> Any:
    given: dict[str, Any] = {"max_epochs": 2, "accelerator": "cpu", "seed": 0} | kwargs
    model.train(enable_progress_bar=False, **given)
    return model


@pytest.fixture(scope="module")
def totalvi() -> TOTALVI:
    adata = new_cells()
    TOTALVI.setup_anndata(adata, **SETUP)
    torch.manual_seed(0)
    return train(TOTALVI(adata, **QUICK), max_epochs=30, batch_size=32)


@pytest.mark.trains
def test_types_that_only_proteins_tell_apart_are_predicted(totalvi: TOTALVI) -> None:
    adata = totalvi.adata
    model = TOTALANVI.from_totalvi_model(totalvi, "unknown", "type")
    train(model, max_epochs=40, batch_size=32, plan_kwargs={"lr": 5e-3})
    unknown = model.unlabeled_indices
    right = model.predict(indices=unknown) == adata.obs["truth"].to_numpy()[unknown]
    assert right.mean() > 0.8
    # As in scvi-tools, the category of unlabelled cells changes places with the last one.
    assert model.labels == ("z", "x", "y") and model.n_labels == 3
    np.testing.assert_array_equal(unknown, np.flatnonzero(adata.obs["type"] == "unknown"))
    assert {"train_accuracy", "kl_div_z_train"} <= {*model.history.keys()}


@pytest.mark.trains
def test_a_model_begins_as_its_totalvi_and_keeps_what_that_learned_of_proteins(
    totalvi: TOTALVI, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in totalvi.module.state_dict().items()}
    model = TOTALANVI.from_totalvi_model(totalvi, "unknown", "type", linear_classifier=True)
    for name, value in before.items():
        assert torch.equal(model.module.state_dict()[name], value), name
    model.is_trained = True
    np.testing.assert_array_equal(
        model.get_latent_representation(), totalvi.get_latent_representation()
    )
    # A third of the epochs that a model without trained weights has, at most ten.
    assert model.train_defaults({}) == {"max_epochs": 10}
    train(model)
    kept = {"background_pro_alpha", "background_pro_log_beta", "log_per_batch_efficiency"}
    parameters = dict(model.module.named_parameters())
    same = {
        name
        for name in parameters
        if name in before and torch.equal(before[name], parameters[name])
    }
    assert same == kept
    assert all(torch.equal(v, totalvi.module.state_dict()[name]) for name, v in before.items())
    model.save(tmp_path / "model")
    again = cellvae.load(tmp_path / "model", totalvi.adata)
    assert set(again.module.frozen_weights.parameters) == kept
    np.testing.assert_array_equal(again.predict(), model.predict())


@pytest.mark.trains
def test_dispersions_by_label_begin_with_those_of_all_cells() -> None:
    adata = new_cells()
    TOTALVI.setup_anndata(adata, **SETUP)
    by_label = {"gene_dispersion": "gene-label", "protein_dispersion": "protein-label"}
    totalvi = train(TOTALVI(adata, **QUICK, **by_label))
    model = TOTALANVI.from_totalvi_model(totalvi, "unknown", "type")
    for name, size in (("px_r", N_GENES), ("py_r", N_PROTEINS)):
        weight = getattr(model.module, name)
        assert weight.shape == (size, 3)
        assert torch.equal(weight, getattr(totalvi.module, name).expand(-1, 3))
    train(model)


@pytest.mark.trains
@pytest.mark.parametrize("all_measured", [True, False])
def test_missing_proteins_switch_the_adversary_on(all_measured: bool) -> None:
    adata = new_cells(all_measured=all_measured)
    TOTALANVI.setup_anndata(adata, **SETUP, **LABELS)
    if all_measured:
        model = TOTALANVI(adata, **QUICK)
    else:
        with pytest.warns(DataWarning, match="zero in all cells of 1 panel"):
            model = TOTALANVI(adata, **QUICK)
    train(model, batch_size=32)
    assert ("adversarial_loss_train" in model.history) == (not all_measured)


@pytest.mark.trains
def test_a_mudata_gives_the_model_of_the_anndata() -> None:
    mudata = pytest.importorskip("mudata")
    adata = new_cells()
    proteins = AnnData(adata.obsm["proteins"].to_numpy(), obs=adata.obs[["type"]])
    proteins.var_names = adata.obsm["proteins"].columns
    mdata = mudata.MuData({"rna": adata.copy(), "protein": proteins})
    TOTALANVI.setup_anndata(adata, **SETUP, **LABELS)
    TOTALANVI.setup_mudata(
        mdata,
        batch_key="batch",
        **LABELS,
        modalities={
            "rna_layer": "rna",
            "protein_layer": "protein",
            "batch_key": "rna",
            "labels_key": "protein",
        },
    )
    found = []
    for cells in (adata, mdata):
        torch.manual_seed(0)
        found.append(train(TOTALANVI(cells, **QUICK)))
    np.testing.assert_array_equal(found[0].predict(soft=True), found[1].predict(soft=True))
    np.testing.assert_array_equal(found[0].labels_, found[1].labels_)
    np.testing.assert_array_equal(found[0].labeled_indices, found[1].labeled_indices)


@pytest.mark.trains
@pytest.mark.parametrize("kind", [TOTALVI, TOTALANVI])
def test_a_query_that_lacks_genes_and_proteins_is_mapped_and_the_reference_stays(
    kind: type[TOTALVI], totalvi: TOTALVI
) -> None:
    reference: Any = totalvi
    if kind is TOTALANVI:
        reference = train(TOTALANVI.from_totalvi_model(totalvi, "unknown", "type"))
    known = new_cells()
    latent = reference.get_latent_representation(known)
    query = new_cells()[:50, 2:].copy()
    query.obs["batch"] = "new"
    del query.obs["type"]
    query.obsm["proteins"] = query.obsm["proteins"].iloc[:, [5, 1, 3]]
    with pytest.warns(DataWarning, match="14 of the 16 genes"):
        kind.prepare_query_anndata(query, reference)
    model: Any = kind.load_query_data(query, reference)
    assert model.module.adversarial
    np.testing.assert_array_equal(
        model.module.measured_by_panel.numpy(),
        [[True] * N_PROTEINS] * 2 + [[i in (1, 3, 5) for i in range(N_PROTEINS)]],
    )
    for name in ("background_pro_alpha", "background_pro_log_beta", "log_per_batch_efficiency"):
        old, new = getattr(reference.module, name), getattr(model.module, name)
        assert new.shape == (N_PROTEINS, 3)
        assert torch.equal(new[:, :2], old)
    train(model, max_epochs=3, batch_size=32, plan_kwargs={"lr": 0.05})
    for name in ("background_pro_alpha", "log_per_batch_efficiency"):
        old, new = getattr(reference.module, name), getattr(model.module, name)
        assert torch.equal(new[:, :2], old)
        assert not torch.equal(new[:, 2], old.mean(dim=1))
    np.testing.assert_allclose(model.get_latent_representation(known), latent, atol=1e-5)
    _, imputed = model.get_normalized_expression()
    assert imputed.shape == (50, N_PROTEINS) and np.isfinite(imputed.to_numpy()).all()
    if kind is TOTALANVI:
        assert set(model.predict()) <= {"x", "y", "z"}
        assert not len(model.labeled_indices)


def test_what_is_missing_is_said(totalvi_untrained: TOTALVI) -> None:
    adata = new_cells()
    for name in LABELS:
        kwargs = {key: value for key, value in LABELS.items() if key != name}
        with pytest.raises(InvalidOptionError, match=f"Expected {name} for a model that learns"):
            TOTALANVI.setup_anndata(adata, **SETUP, **kwargs)
    with pytest.raises(NotTrainedError):
        TOTALANVI.from_totalvi_model(totalvi_untrained, "unknown", "type")
    totalvi_untrained.is_trained = True
    with pytest.raises(InvalidOptionError, match="since the TOTALVI was set up without labels"):
        TOTALANVI.from_totalvi_model(totalvi_untrained, "unknown")
    with pytest.raises(InvalidOptionError, match="n_hidden to be that of the TOTALVI, 16; got 8"):
        TOTALANVI.from_totalvi_model(totalvi_untrained, "unknown", "type", n_hidden=8)
    with pytest.raises(InvalidOptionError, match="totalvi_model to be a TOTALVI; got dict"):
        TOTALANVI.from_totalvi_model({}, "unknown", "type")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="latent_distribution"):
        TOTALANVI.from_totalvi_model(totalvi_untrained, "unknown", "type", latent_distribution="ln")


@pytest.fixture
def totalvi_untrained() -> TOTALVI:
    adata = new_cells()
    TOTALVI.setup_anndata(adata, **SETUP)
    return TOTALVI(adata, **QUICK)

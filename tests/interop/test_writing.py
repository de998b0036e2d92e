"""Models written for scvi-tools: read again here, and by scvi-tools where it is at hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.errors import InvalidOptionError, NotTrainedError
from cellvae.model import MODELS, SCANVI, SCVI, AmortizedLDA, LinearSCVI

pytestmark = pytest.mark.trains

HERE = Path(__file__).parent
SMALL: dict[str, Any] = {"n_hidden": 6, "n_latent": 3}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("SCVI", {"batch_key": "batch"}, SMALL),
    "covariates": (
        "SCVI",
        {
            "batch_key": "batch",
            "labels_key": "labels",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        {
            **SMALL,
            "n_layers": 2,
            "encode_covariates": True,
            "dispersion": "gene-label",
            "gene_likelihood": "nb",
            "use_observed_lib_size": False,
        },
    ),
    "size": ("SCVI", {"size_factor_key": "size"}, {**SMALL, "gene_likelihood": "poisson"}),
    "embedding": ("SCVI", {"batch_key": "batch"}, {**SMALL, "batch_representation": "embedding"}),
    "labels": (
        "SCANVI",
        {"labels_key": "labels", "unlabeled_category": "label_1", "batch_key": "batch"},
        {**SMALL, "linear_classifier": True},
    ),
    "probabilities": (
        "SCANVI",
        {"labels_key": "labels", "unlabeled_category": "label_1", "batch_key": "batch"},
        {**SMALL, "classifier_parameters": {"logits": False, "n_hidden": 5}},
    ),
    "linear": ("LinearSCVI", {"batch_key": "batch"}, SMALL),
    "linear_observed": (
        "LinearSCVI",
        {},
        {**SMALL, "n_layers": 2, "gene_likelihood": "zinb", "use_observed_lib_size": True},
    ),
    "bare_peaks": ("PEAKVI", {}, {**SMALL, "model_depth": False, "region_factors": False}),
    "peaks": ("PEAKVI", {"batch_key": "batch"}, {**SMALL, "encode_covariates": True}),
}


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return anndata.read_h5ad(HERE / "data" / "cells.h5ad")


@pytest.fixture(scope="module")
def written(cells: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder with a model of each case, and their latents."""
    folder = tmp_path_factory.mktemp("written")
    latents = {}
    for name, (kind, setup, config) in CASES.items():
        MODELS[kind].setup_anndata(cells, **setup)  # type: ignore[attr-defined]
        torch.manual_seed(0)
        model: Any = MODELS[kind](cells, **config)
        kwargs = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False}
        model.train(max_epochs=1, early_stopping=False, **kwargs)
        model.save(folder / name, format="scvi-tools")
        latents[name] = model.get_latent_representation()
    return folder, latents


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read_again(name: str, written: Any, cells: AnnData) -> None:
    folder, latents = written
    again = cellvae.load(folder / name, cells)
    kind, _, config = CASES[name]
    assert type(again).__name__ == kind
    assert all(getattr(again.config, word) == value for word, value in config.items())
    np.testing.assert_array_equal(again.get_latent_representation(), latents[name])
    assert len(again.train_indices) == 72


def test_scvi_tools_finds_the_same_latents(written: Any, cells: AnnData) -> None:
    peer = os.environ.get("CELLVAE_PEER_PYTHON")
    if peer is None:
        pytest.skip("CELLVAE_PEER_PYTHON does not name a Python with scvi-tools")
    folder, latents = written
    (folder / "kinds.json").write_text(json.dumps({n: case[0] for n, case in CASES.items()}))
    cells.write_h5ad(folder / "cells.h5ad")
    done = subprocess.run(
        [peer, HERE / "peer.py", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, latent in latents.items():
        np.testing.assert_allclose(np.load(folder / f"{name}.npy"), latent, atol=1e-5)
    for name, case in CASES.items():
        if case[0] == "SCANVI":
            ours = cellvae.load(folder / name, cells).predict(soft=True)  # type: ignore[attr-defined]
            np.testing.assert_allclose(np.load(folder / f"{name} labels.npy"), ours, atol=1e-5)


def test_what_scvi_tools_cannot_be_told_is_refused(cells: AnnData, tmp_path: Path) -> None:
    SCVI.setup_anndata(cells)
    model = SCVI(cells, **SMALL, var_activation="softplus")
    with pytest.raises(NotTrainedError):
        model.save(tmp_path / "model", format="scvi-tools")
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(InvalidOptionError, match="var_activation"):
        model.save(tmp_path / "model", format="scvi-tools")
    with pytest.raises(InvalidOptionError, match="'cellvae' or 'scvi-tools'"):
        model.save(tmp_path / "model", format="pickle")  # type: ignore[arg-type]
    labels = {"labels_key": "labels", "unlabeled_category": "label_1"}
    SCANVI.setup_anndata(cells, **labels)
    scanvi = SCANVI(cells, **SMALL, dispersion="gene-label")
    scanvi.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(InvalidOptionError, match="gene-label"):
        scanvi.save(tmp_path / "model", format="scvi-tools")
    LinearSCVI.setup_anndata(cells, continuous_covariate_keys=["age"])
    linear = LinearSCVI(cells, **SMALL, bias=True)
    linear.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(InvalidOptionError, match="'bias', 'continuous_covariate_keys'"):
        linear.save(tmp_path / "model", format="scvi-tools")
    AmortizedLDA.setup_anndata(cells)
    with pytest.raises(InvalidOptionError, match="got AmortizedLDA"):
        AmortizedLDA(cells, n_topics=2).save(tmp_path / "model", format="scvi-tools")


def test_a_model_that_is_there_is_replaced_only_on_demand(
    written: Any, cells: AnnData, tmp_path: Path
) -> None:
    model = cellvae.load(written[0] / "plain", cells)
    model.save(tmp_path, format="scvi-tools", save_anndata=True)
    with pytest.raises(InvalidOptionError, match="overwrite=True"):
        model.save(tmp_path, format="scvi-tools")
    model.save(tmp_path, format="scvi-tools", overwrite=True)
    again = cellvae.load(tmp_path)
    assert again.adata is not None and again.adata.n_obs == cells.n_obs


@pytest.mark.parametrize("prefix", ["", "a_"])
@pytest.mark.parametrize("formats", [("scvi-tools", "cellvae"), ("cellvae", "scvi-tools")])
def test_a_model_replaces_one_of_the_other_format(
    written: Any, cells: AnnData, tmp_path: Path, formats: Any, prefix: str
) -> None:
    """The model that is loaded is the one that was saved last, not one that was left over."""
    old = cellvae.load(written[0] / "plain", cells)
    SCVI.setup_anndata(cells, batch_key="batch")
    new = SCVI(cells, **SMALL)
    new.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    old.save(tmp_path, prefix, format=formats[0])
    old.save(tmp_path, "other_", format=formats[0])
    with pytest.raises(InvalidOptionError, match=f"a model of {formats[0]}. Give overwrite=True"):
        new.save(tmp_path, prefix, format=formats[1])
    new.save(tmp_path, prefix, overwrite=True, format=formats[1])
    again = SCVI.load(tmp_path, cells, prefix=prefix)
    np.testing.assert_array_equal(
        again.get_latent_representation(), new.get_latent_representation()
    )
    found = {path.name for path in tmp_path.glob(f"{prefix}[mw]*")}
    own = {f"{prefix}model.json", f"{prefix}weights.safetensors"}
    assert found == ({f"{prefix}model.pt"} if formats[1] == "scvi-tools" else own)
    beside = SCVI.load(tmp_path, cells, prefix="other_")
    np.testing.assert_array_equal(
        beside.get_latent_representation(), old.get_latent_representation()
    )


def test_a_model_of_this_package_goes_before_one_of_scvi_tools(
    written: Any, cells: AnnData, tmp_path: Path
) -> None:
    """A save that was cut off before the other model was removed has been done all the same."""
    model = cellvae.load(written[0] / "plain", cells)
    model.save(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"left over")
    again = cellvae.load(tmp_path, cells)
    np.testing.assert_array_equal(
        again.get_latent_representation(), model.get_latent_representation()
    )

"""Cells that are assigned to a model, and attributes that notebooks read from its network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from cellvae.data import synthetic_iid
from cellvae.errors import DataMismatchError, InvalidDataError, UnknownKeyError
from cellvae.model import PEAKVI, POISSONVI, SCANVI, SCVI, AmortizedLDA, LinearSCVI

pytestmark = pytest.mark.trains


def test_assigned_cells_are_those_of_the_model(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    model = train(make(cells()))
    other = cells(30, seed=5)
    other = other[:, ::-1].copy()
    expected = model.get_latent_representation(other)
    before, train_indices = other.copy(), model.train_indices
    model.adata = other
    assert model.adata is other
    assert np.array_equal(model.get_latent_representation(), expected)
    assert model.get_normalized_expression().index.equals(other.obs_names)
    assert model.adata_manager.summary_stats.n_cells == 30
    assert model.train_indices is train_indices
    assert other.obs.equals(before.obs)
    assert set(other.uns) == set(before.uns)
    train(model)
    assert model.train_indices.max() < 30


def test_cells_that_do_not_fit_are_refused_and_the_model_keeps_its_own(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    own = cells()
    model = train(make(own))
    latent = model.get_latent_representation()
    missing = cells()[:, 1:].copy()
    unknown = cells()
    unknown.obs["batch"] = "b9"
    without = cells()
    del without.obs["batch"]
    wrong: list[tuple[Any, type[Exception], str]] = [
        (None, InvalidDataError, "Expected an AnnData; got NoneType"),
        (own.X, InvalidDataError, "Expected an AnnData; got ndarray"),
        (missing, DataMismatchError, "missing 'gene0'"),
        (unknown, DataMismatchError, "got 'b9' in 70 cells"),
        (without, UnknownKeyError, "Expected a column of adata.obs; got 'batch'"),
    ]
    for adata, error, message in wrong:
        with pytest.raises(error, match=message):
            model.adata = adata
        assert model.adata is own
    assert np.array_equal(model.get_latent_representation(), latent)


def test_cells_are_assigned_to_a_model_that_was_loaded_without(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI], tmp_path: Path
) -> None:
    model = train(make(adata))
    model.save(tmp_path / "model")
    again = SCVI.load(tmp_path / "model")
    assert again.adata is None
    again.adata = adata
    assert np.array_equal(again.get_latent_representation(), model.get_latent_representation())
    model.minify_adata()
    again.adata = model.adata
    assert again.minified_data_type == "latent_posterior_parameters"


@pytest.mark.parametrize(
    ("kind", "kwargs", "expected"),
    [
        (SCVI, {"n_latent": 4}, {"n_latent": 4, "n_hidden": 16, "n_layers": 1, "n_labels": 3}),
        (
            SCVI,
            {"dispersion": "gene-batch"},
            {"dispersion": "gene-batch", "gene_likelihood": "zinb"},
        ),
        (SCANVI, {"n_layers": 2}, {"n_layers": 2, "n_labels": 2, "n_continuous_cov": 0}),
        (LinearSCVI, {}, {"n_latent": 10, "use_size_factor_key": False, "n_cats_per_cov": ()}),
        (PEAKVI, {"n_hidden": None}, {"n_hidden": 6, "n_latent": 2, "n_input_regions": 40}),
        (POISSONVI, {"n_hidden": None}, {"n_hidden": 6, "n_latent": 2, "n_input": 40}),
        (AmortizedLDA, {"n_topics": 3}, {"n_topics": 3, "n_hidden": 16, "n_input": 40}),
    ],
)
def test_networks_have_options_and_sizes_as_attributes(
    kind: type[Any], kwargs: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    adata = synthetic_iid(batch_size=20, n_genes=40)
    setup: dict[str, Any] = {} if kind is AmortizedLDA else {"batch_key": "batch"}
    if kind in (SCVI, SCANVI):
        setup["labels_key"] = "labels"
    if kind is SCANVI:
        setup["unlabeled_category"] = "label_1"
    kind.setup_anndata(adata, **setup)
    model = kind(adata, **{"n_hidden": 16} | kwargs)
    n_batch = {} if "n_input_regions" in expected or kind is AmortizedLDA else {"n_batch": 2}
    weights = set(model.module.state_dict())
    model.save(tmp_path / "model")
    for one in (model, kind.load(tmp_path / "model")):
        for name, value in (expected | n_batch).items():
            assert getattr(one.module, name) == value, name
        assert set(one.module.state_dict()) == weights

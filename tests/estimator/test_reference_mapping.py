"""Reference mapping of SCVI and SCANVI: what is refused, what is told, what is learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData

from cellvae.data.setup.align_genes import PADDING_KEY
from cellvae.errors import (
    DataMismatchError,
    DataWarning,
    FileFormatError,
    InvalidDataError,
    InvalidOptionError,
    NotTrainedError,
    UnknownKeyError,
)
from cellvae.model import SCANVI, SCVI

pytestmark = pytest.mark.trains


class Stop(pl.Callback):
    """Ends a run after its second epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


@pytest.fixture
def query(cells: Callable[..., AnnData]) -> AnnData:
    adata = cells(60, seed=4)
    adata.obs["batch"] = np.array(["b0", "new"])[np.arange(60) % 2]
    return adata


def test_one_hot_columns_of_several_covariates_stay_in_their_places(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    adata = cells()
    setup = {"batch_key": "batch", "categorical_covariate_keys": ["donor", "label"]}
    reference = train(make(adata, setup, n_layers=2, encode_covariates=True))
    query = cells(40, seed=2)
    query.obs["batch"] = "new"
    query.obs["label"] = np.array(["x", "z"])[np.arange(40) % 2]
    model = SCVI.load_query_data(query, reference)
    name = "decoder.px_decoder.fc_layers.Layer 0.0.weight"
    old, new = reference.module.state_dict()[name], model.module.state_dict()[name]
    # latent 3, batches 3 -> 4, donors 3, labels 2 -> 3
    assert old.shape[1] == 3 + 3 + 3 + 2 and new.shape[1] == 3 + 4 + 3 + 3
    assert torch.equal(new[:, [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]], old)
    torch.testing.assert_close(new[:, 6], old[:, 3:6].mean(1))
    torch.testing.assert_close(new[:, 12], old[:, 9:11].mean(1))
    assert model.module.frozen_weights.slices[name].ranges == ((0, 3), (3, 6), (7, 10), (10, 12))


def test_a_covariate_of_one_category_had_no_column(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    adata = cells()
    adata.obs["batch"] = "only"
    reference = train(make(adata, encode_covariates=True))
    query = cells(40, seed=2)
    model = SCVI.load_query_data(query, reference)
    first = model.module.get_parameter("z_encoder.encoder.fc_layers.Layer 0.0.weight")
    assert first.shape[1] == adata.n_vars + 4
    assert (first[:, adata.n_vars :] == 0).all()
    train(model, plan_kwargs={"lr": 0.05})
    assert (first[:, adata.n_vars] == 0).all()
    assert (first[:, adata.n_vars + 1 :] != 0).any(0).all()


def test_sizes_of_new_batches_are_theirs(
    cells: Callable[..., AnnData],
    make: Callable[..., SCVI],
    train: Callable[..., SCVI],
    query: AnnData,
) -> None:
    reference = train(make(cells(), use_observed_lib_size=False))
    model = SCVI.load_query_data(query, reference)
    old, new = reference.module.library_log_means, model.module.library_log_means
    assert torch.equal(new[:, :3], old)
    own = np.log(query.X[query.obs["batch"] == "new"].sum(1)).mean()
    assert new[0, 3].item() == pytest.approx(own, rel=1e-6)


def test_a_frozen_batch_norm_works_in_training_as_afterwards(
    trained: SCVI, query: AnnData, train: Callable[..., SCVI]
) -> None:
    model = SCVI.load_query_data(query, trained, freeze_dropout=True)
    model.module.train()
    norm = model.module.get_submodule("z_encoder.encoder.fc_layers.Layer 0.1")
    dropout = model.module.get_submodule("z_encoder.encoder.fc_layers.Layer 0.4")
    free = model.module.get_submodule("decoder.px_decoder.fc_layers.Layer 0.1")
    assert not norm.training and not dropout.training and free.training
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            seen.append((norm.training, dropout.training, free.training))

    train(model, callbacks=[Watch()], max_epochs=2, check_val_every_n_epoch=1)
    assert set(seen) == {(False, False, True)}


def test_a_run_cut_off_goes_on_bit_by_bit(
    trained: SCVI, query: AnnData, train: Callable[..., SCVI], tmp_path: Path
) -> None:
    whole = train(SCVI.load_query_data(query, trained), max_epochs=4)
    first = SCVI.load_query_data(query, trained)
    with pytest.raises(KeyboardInterrupt):
        train(first, max_epochs=4, run_dir=tmp_path, on_interrupt="raise", callbacks=[Stop()])
    second = train(
        SCVI.load_query_data(query, trained), max_epochs=4, run_dir=tmp_path, resume="auto"
    )
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, second.module.state_dict()[name]), name


def test_reset_would_lose_the_reference(trained: SCVI, query: AnnData) -> None:
    model = SCVI.load_query_data(query, trained)
    with pytest.raises(InvalidOptionError, match="discard the reference"):
        model.train(reset=True)


def test_what_is_told_of_new_categories(
    trained: SCVI, query: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "cellvae"):
        SCVI.load_query_data(query, trained)
    assert "Added to the reference: batch: 'new'." in caplog.text


def test_what_cannot_be_mapped_is_refused(
    trained: SCVI, query: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    with pytest.raises(InvalidOptionError, match="reference_model: a trained model"):
        SCVI.load_query_data(query)
    with pytest.raises(InvalidOptionError, match="as an AnnData"):
        SCVI.load_query_data(reference_model=trained)
    with pytest.raises(InvalidOptionError, match="trained SCANVI or its folder; got SCVI"):
        SCANVI.load_query_data(query, trained)
    trained.save(tmp_path / "model")
    with pytest.raises(FileFormatError, match="saved SCANVI"):
        SCANVI.load_query_data(query, tmp_path / "model")
    with pytest.raises(DataMismatchError, match="transfer_batch=False; got 'new'"):
        SCVI.load_query_data(query, trained, transfer_batch=False)
    with pytest.raises(DataMismatchError, match="missing 'gene3'"):
        SCVI.load_query_data(query[:, [0, 1, 2]].copy(), trained)
    untrained = make(query.copy())
    with pytest.raises(NotTrainedError):
        SCVI.load_query_data(query, untrained)
    without = query.copy()
    del without.obs["batch"]
    with pytest.raises(UnknownKeyError, match="batch"):
        SCVI.load_query_data(without, trained)
    missing = query.copy()
    missing.obs["batch"] = missing.obs["batch"].where(np.arange(60) > 2)
    with pytest.raises(InvalidDataError, match="3 missing"):
        SCVI.load_query_data(missing, trained)
    assert "cellvae" not in query.uns


def test_a_known_category_of_another_type_is_no_new_one(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    reference = train(make(cells(), {"batch_key": "donor"}))
    query = cells(40, seed=2)
    query.obs["donor"] = query.obs["donor"].astype(str)
    with pytest.raises(DataMismatchError, match=r"as int\); got .* as str"):
        SCVI.load_query_data(query, reference)


def test_further_genes_do_no_harm_and_can_be_dropped(trained: SCVI, query: AnnData) -> None:
    wide = AnnData(
        np.hstack([query.X[:, ::-1], query.X[:, :2]]),
        obs=query.obs,
        var={"name": [*query.var_names[::-1], "more0", "more1"]},
    )
    wide.var_names = wide.var["name"].to_numpy()
    plain, more = SCVI.load_query_data(query, trained), SCVI.load_query_data(wide, trained)
    assert wide.n_vars == query.n_vars + 2
    plain.is_trained = more.is_trained = True
    np.testing.assert_array_equal(
        plain.get_latent_representation(), more.get_latent_representation()
    )
    SCVI.load_query_data(wide, trained, inplace_subset_query_vars=True)
    assert [*wide.var_names] == [*query.var_names]


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_missing_genes_are_zeros_and_told(
    kind: str, inplace: bool, trained: SCVI, query: AnnData, tmp_path: Path
) -> None:
    from scipy import sparse

    part = query[:, [5, 0, 1, 2, 3, 4, 6, 8, 9, 11]].copy()
    part.X = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[kind](part.X)
    part.layers["more"] = part.X.copy()
    part.obsm["place"] = np.arange(120.0).reshape(60, 2)
    trained.save(tmp_path / "model", overwrite=True)
    with pytest.warns(DataWarning, match=r"10 of the 12 genes .* \(83.3%\).*'gene7', 'gene10'"):
        made = SCVI.prepare_query_anndata(part, tmp_path / "model", inplace=inplace)
    assert (made is None) == inplace
    found = part if inplace else made
    assert [*found.var_names] == [*query.var_names]
    assert found.var_names[found.var[PADDING_KEY]].tolist() == ["gene7", "gene10"]
    expected = query.X.copy()
    expected[:, [7, 10]] = 0
    for matrix in (found.X, found.layers["more"]):
        dense = matrix if kind == "dense" else matrix.toarray()
        assert kind == "dense" or (matrix.format == kind and matrix.has_canonical_format)
        np.testing.assert_array_equal(dense, expected)
    np.testing.assert_array_equal(found.obsm["place"], part.obsm["place"])
    model = SCVI.load_query_data(found, tmp_path / "model")
    assert model.registration.n_cells == 60


def test_too_few_genes_are_refused_unless_told(trained: SCVI, query: AnnData) -> None:
    few = query[:, :4].copy()
    with pytest.raises(DataMismatchError, match=r"80% .* got 4 \(33.3%\).*min_fraction=0.333"):
        SCVI.prepare_query_anndata(few, trained)
    assert few.n_vars == 4
    with pytest.warns(DataWarning, match="4 of the 12"):
        SCVI.prepare_query_anndata(few, trained, min_fraction=0.333)
    assert few.n_vars == 12
    other = query.copy()
    other.var_names = [name.upper() for name in other.var_names]
    with pytest.raises(DataMismatchError, match=r"got 0 \(0.0%\).*Did you mean 'GENE0'"):
        SCVI.prepare_query_anndata(other, trained, min_fraction=0)
    twice = query.copy()
    twice.var_names = ["gene1", *query.var_names[1:]]
    with pytest.raises(InvalidDataError, match="'gene1' more than once"):
        SCVI.prepare_query_anndata(twice, trained)
    with pytest.raises(InvalidOptionError, match="from 0 to 1"):
        SCVI.prepare_query_anndata(query, trained, min_fraction=80)


def test_genes_of_the_reference_alone(trained: SCVI, query: AnnData) -> None:
    names = SCVI.prepare_query_anndata(query, trained, return_reference_var_names=True)
    assert [*names] == [*query.var_names]
    assert SCVI.prepare_query_anndata(query, trained) is None
    assert PADDING_KEY not in query.var


def test_labels_of_a_query_may_be_missing_but_not_others(
    cells: Callable[..., AnnData], query: AnnData, train: Callable[..., Any]
) -> None:
    adata = cells(120)
    SCANVI.setup_anndata(adata, "label", "unknown", batch_key="batch")
    reference = train(SCANVI(adata, n_hidden=8, n_latent=3), max_epochs=3)
    del query.obs["label"]
    model = SCANVI.load_query_data(query, reference)
    assert model.labels == ("x", "y") and len(model.unlabeled_indices) == 60
    train(model)
    assert set(model.predict()) <= {"x", "y"}
    query.obs["label"] = np.where(np.arange(60) < 20, "x", None)
    partly = train(SCANVI.load_query_data(query, reference))
    np.testing.assert_array_equal(partly.labeled_indices, np.arange(20))
    query.obs["label"] = "z"
    with pytest.raises(DataMismatchError, match="'x', 'y', 'unknown'"):
        SCANVI.load_query_data(query, reference)


def test_a_file_that_claims_other_weights_are_kept_is_refused(
    trained: SCVI, query: AnnData
) -> None:
    from cellvae.core.frozen_weights import FrozenWeights

    model = SCVI.load_query_data(query, trained)
    values: Any = model.module.frozen_weights.to_json()
    assert FrozenWeights.from_json(values, model.module) == model.module.frozen_weights
    name = next(iter(values["parts"]))
    for wrong in (
        {},
        [],
        {**values, "whole": ["nothing"]},
        {**values, "whole": 3},
        {**values, "still": ["nothing"]},
        {**values, "parts": {name: [1, [[0, 10_000]]]}},
        {**values, "parts": {name: [7, [[0, 1]]]}},
        {**values, "parts": {name: [-1, [[0, 1]]]}},
        {**values, "parts": {name: [1, [[2, 1]]]}},
        {**values, "parts": {"nothing": [0, [[0, 1]]]}},
    ):
        with pytest.raises(FileFormatError, match="kept"):
            FrozenWeights.from_json(wrong, model.module)

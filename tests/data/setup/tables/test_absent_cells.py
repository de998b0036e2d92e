"""Modalities that lack cells of a MuData, read with zeros, into batches of MultiVI."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from cellvae.data import Registration
from cellvae.data.setup.fields import Counts, ProteinsRecord, RegionsRecord, record_from_json
from cellvae.data.setup.fields.multimodal_keys import MultimodalKeys, multimodal_fields
from cellvae.data.setup.tables.absent_cells import insert_zero_rows, table_of_all_cells
from cellvae.errors import DataMismatchError, DataWarning, UnknownKeyError
from cellvae.model.networks.multivi_module import MULTIVIBatch, MULTIVIModule
from cellvae.model.networks.multivi_network import MULTIVIConfig, MULTIVISizes

mudata = pytest.importorskip("mudata")

SIZES = {"rna": 8, "atac": 11, "adt": 3}
CELLS = {"rna": [*range(14)], "atac": [*range(6, 20)], "adt": [*range(0, 20, 2)]}
LAYERS = {"rna_layer": "rna", "atac_layer": "atac", "protein_layer": "adt"}


def make_table(name: str, cells: list[int], matrix: Any = sparse.csr_matrix) -> AnnData:
    """Counts of these cells, above zero in every cell."""
    rng = np.random.default_rng(len(name) + SIZES[name])
    counts = 1 + rng.poisson(1.0, (20, SIZES[name])).astype(np.float32)
    counts[:, 0] = 0
    names = pd.Index([f"{name}{i}" for i in range(SIZES[name])])
    obs = pd.DataFrame(index=[f"cell{i}" for i in cells])
    return AnnData(matrix(counts[cells]), obs=obs, var=pd.DataFrame(index=names))


def make_mudata(matrix: Any = sparse.csr_matrix, **cells: list[int]) -> Any:
    """MuData whose modalities lack cells, and whose `obs` has a batch."""
    chosen = {**CELLS, **cells}
    mdata = mudata.MuData({n: make_table(n, chosen[n], matrix) for n in SIZES})
    mdata = mdata[[f"cell{i}" for i in range(20)]].copy()
    mdata.obs["batch"] = pd.Categorical(["a", "b"] * 10)
    return mdata


def read(mdata: Any, **keys: Any) -> tuple[Any, MULTIVIBatch]:
    """Registration of a MuData, and a batch of all its cells."""
    given = MultimodalKeys(**{"modalities": LAYERS, "batch_key": "batch", **keys})
    fields = multimodal_fields(given)
    registration = Registration.of(mdata, given, fields)
    rows = registration.read(mdata, fields, MULTIVIBatch)
    return registration, rows.take(torch.arange(len(rows)))


@pytest.mark.parametrize(
    "matrix", [sparse.csr_matrix, sparse.csc_matrix, np.asarray], ids=["csr", "csc", "dense"]
)
@pytest.mark.parametrize("layer", [None, "counts"])
def test_absent_cells_are_zero_and_the_others_are_in_the_order_of_the_whole(
    matrix: Any, layer: str | None
) -> None:
    mdata = make_mudata(matrix, rna=[13, 2, *range(3, 13), 0, 1])
    if layer is not None:
        for table in mdata.mod.values():
            table.layers[layer] = table.X.copy()
            table.X = table.X * 0
    _, batch = read(mdata, layer=layer, atac_layer=layer, protein_layer=layer)
    for field, name in (("counts", "rna"), ("regions", "atac"), ("proteins", "adt")):
        expected = np.zeros((20, SIZES[name]), dtype=np.float32)
        expected[CELLS[name]] = np.asarray(make_table(name, CELLS[name], np.asarray).X)
        np.testing.assert_array_equal(getattr(batch, field).numpy(), expected)


def test_axes_are_those_of_the_modalities_in_the_order_of_the_outputs() -> None:
    registration, _ = read(make_mudata())
    assert list(registration.axes) == ["genes", "regions", "proteins"]
    assert [len(axis) for axis in registration.axes.values()] == [8, 11, 3]
    with pytest.warns(DataWarning, match="6 cells of 20 without any"):
        only, _ = read(make_mudata(), modalities={"atac_layer": "atac"})
    assert list(only.axes) == ["regions"]
    assert only.genes[0] == "atac0"


def test_records_are_the_same_after_json() -> None:
    registration, _ = read(make_mudata())
    values = json.loads(json.dumps(registration.to_json()))
    assert Registration.from_json(values, MultimodalKeys) == registration
    for name, record in registration.fields.items():
        again = record_from_json(json.loads(json.dumps(record.to_json())), name)
        assert again == record
        if isinstance(record, (RegionsRecord, ProteinsRecord)):
            assert again.field(name).fill_absent


def test_proteins_that_are_zero_in_a_batch_are_not_in_its_panel() -> None:
    mdata = make_mudata(adt=[*range(0, 20, 2), 1])
    registration, _ = read(mdata)
    measured = registration.record("proteins", ProteinsRecord).measurement_mask(3)
    np.testing.assert_array_equal(measured, [[False, True, True], [False, True, True]])
    registration, _ = read(make_mudata())  # batch "b" has no cell with proteins
    measured = registration.record("proteins", ProteinsRecord).measurement_mask(3)
    assert not measured[1].any()


def test_the_network_reads_the_batch_and_masks_what_is_absent() -> None:
    registration, batch = read(make_mudata())
    sizes = MULTIVISizes(
        n_genes=registration.n_features("genes"),
        n_regions=registration.n_features("regions"),
        n_proteins=registration.n_features("proteins"),
        n_batch=registration.n_categories("batch"),
        panels=registration.record("proteins", ProteinsRecord).measurement_mask(3).tolist(),
    )
    module = MULTIVIModule(sizes, MULTIVIConfig())
    masks = module.has_modality(batch)
    for mask, cells in zip(masks.values(), CELLS.values(), strict=True):
        assert mask[:, 0].nonzero()[:, 0].tolist() == cells
    loss = module.loss(batch, torch.tensor(1.0))
    assert torch.isfinite(loss.loss)
    losses = loss.reconstruction
    assert (losses["reconstruction_loss_expression"][14:] == 0).all()
    assert (losses["reconstruction_loss_protein"][1::2] == 0).all()


def test_size_factors_are_columns_of_genes_and_of_regions() -> None:
    mdata = make_mudata()
    mdata.obs["size"], mdata.obs["depth"] = np.arange(1.0, 21.0), np.linspace(0.1, 0.9, 20)
    _, batch = read(mdata, size_factor_key=("size", "depth"))
    np.testing.assert_allclose(batch.size_factor[:, 0], mdata.obs["size"])
    np.testing.assert_allclose(batch.region_size_factor[:, 0], mdata.obs["depth"], rtol=1e-6)
    _, batch = read(mdata, size_factor_key=("size",))
    assert batch.region_size_factor is None


def test_other_fields_refuse_a_modality_that_lacks_cells() -> None:
    with pytest.raises(DataMismatchError, match="missing"):
        Counts(modality="rna").table(make_mudata())
    with pytest.raises(UnknownKeyError, match="Expected a modality"):
        table_of_all_cells(make_mudata(), "rnaa", None)


def test_rows_of_a_sparse_matrix_share_its_memory_where_the_order_is_the_same() -> None:
    values = sparse.csr_matrix(np.eye(3, 4, dtype=np.float32))
    filled = insert_zero_rows(values, np.array([-1, 0, -1, 1, 2]))
    assert np.shares_memory(filled.data, values.data)
    np.testing.assert_array_equal(filled.toarray()[[1, 3, 4]], values.toarray())
    assert filled.toarray()[[0, 2]].sum() == 0

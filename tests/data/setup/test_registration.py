"""Registration: what was found, genes by name, and the way through JSON."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from torch import Tensor

from cellvae.data.setup.fields import count_fields
from cellvae.data.setup.keys import CountKeys
from cellvae.data.setup.registration import Registration
from cellvae.errors import (
    DataMismatchError,
    DataWarning,
    FileFormatError,
    InvalidDataError,
    UnknownKeyError,
)

KEYS = CountKeys(
    batch_key="donor",
    labels_key="type",
    size_factor_key="size",
    categorical_covariate_keys=("sex",),
    continuous_covariate_keys=("age", "score"),
)
FIELDS = count_fields(KEYS)


class Batch(NamedTuple):
    """What a model of counts reads."""

    counts: Tensor
    batch: Tensor
    labels: Tensor
    size_factor: Tensor | None = None
    categorical: Tensor | None = None
    continuous: Tensor | None = None


def make_cells(n_cells: int = 12, n_genes: int = 5) -> AnnData:
    numbers = np.arange(n_cells)
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical(np.array(["d2", "d1"])[numbers % 2], categories=["d2", "d1"]),
            "type": np.array(["T", "B", "NK"])[numbers % 3],
            "size": 0.5 + numbers,
            "sex": numbers % 2 == 0,
            "age": numbers * 2,
            "score": -numbers / 4,
        },
        index=[f"c{i}" for i in numbers],
    )
    counts = np.random.default_rng(1).poisson(3, (n_cells, n_genes)) + np.eye(n_cells, n_genes)
    counts[:, 0] += 1  # No cell is empty.
    var = pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])
    return AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


@pytest.fixture
def cells() -> AnnData:
    return make_cells()


@pytest.fixture
def registration(cells: AnnData) -> Registration[CountKeys]:
    return Registration.of(cells, KEYS, FIELDS)


def assert_same(found: Batch, expected: Batch) -> None:
    for name, value, other in zip(Batch._fields, found, expected, strict=True):
        assert (value is None) == (other is None), name
        if value is not None:
            assert value.dtype == other.dtype and torch.equal(value, other), name


def test_what_was_found_is_what_is_there(registration: Registration[CountKeys]) -> None:
    assert registration.n_cells == 12
    assert registration.genes == ("g0", "g1", "g2", "g3", "g4") and registration.n_genes == 5
    assert registration.integers
    assert registration.categories("batch") == ("d2", "d1")
    assert registration.categories("labels") == ("B", "NK", "T")
    assert registration.n_categories("labels") == 3
    assert registration.n_categories_by_key("categorical") == (2,)
    assert registration.n_numbers("continuous") == 2 and registration.n_numbers("size_factor") == 1
    with pytest.raises(KeyError, match="Expected one of the fields 'batch', 'labels'; got 'size_f"):
        registration.categories("size_factor")


def test_without_keys_there_is_one_category_of_each_kind(cells: AnnData) -> None:
    fields = count_fields(CountKeys())
    registration = Registration.of(cells, CountKeys(), fields)
    assert registration.n_categories("batch") == registration.n_categories("labels") == 1
    assert registration.categories("batch") == (0,)
    assert registration.n_categories_by_key("categorical") == ()
    assert registration.n_numbers("size_factor") == registration.n_numbers("continuous") == 0
    batch = registration.read(cells, fields, Batch).take(torch.tensor([4, 4]))
    assert batch.batch.tolist() == batch.labels.tolist() == [[0], [0]]
    assert batch.size_factor is batch.categorical is batch.continuous is None


def test_rows_hold_what_the_anndata_holds(
    cells: AnnData, registration: Registration[CountKeys]
) -> None:
    chosen = [7, 0, 11, 7]
    found = registration.read(cells, FIELDS, Batch).take(torch.tensor(chosen))
    obs = cells.obs.iloc[chosen]
    expected = Batch(
        torch.from_numpy(cells.X.toarray()[chosen]),
        torch.tensor([[["d2", "d1"].index(donor)] for donor in obs["donor"]]),
        torch.tensor([[["B", "NK", "T"].index(kind)] for kind in obs["type"]]),
        torch.tensor(obs[["size"]].to_numpy(np.float32)),
        torch.tensor([[int(sex)] for sex in obs["sex"]]),
        torch.tensor(obs[["age", "score"]].to_numpy(np.float32)),
    )
    assert_same(found, expected)


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_genes_are_matched_by_name_and_others_left_out(
    cells: AnnData, registration: Registration[CountKeys], backed: bool, dense: bool, tmp_path: Path
) -> None:
    expected = registration.read(cells, FIELDS, Batch).take(torch.arange(12))
    more = make_cells(12, 3)
    more.var_names = ["x", "y", "z"]
    other = anndata.concat([more, cells], axis=1, merge="first")[
        :, ["g3", "x", "g0", "g4", "z", "g2", "g1"]
    ].copy()
    if dense:
        other.X = other.X.toarray()
    if backed:
        other.write_h5ad(tmp_path / "other.h5ad")
        other = anndata.read_h5ad(tmp_path / "other.h5ad", backed="r")
    assert registration.gene_order(other).tolist() == [2, 6, 5, 0, 3]
    rows = registration.read(other, FIELDS, Batch)
    assert_same(rows.take(torch.arange(12)), expected)
    part = registration.read(other[3:9, ["g4", "g1", "g0", "g3", "g2"]], FIELDS, Batch)
    chosen = [x[[8, 3]] for x in expected if x is not None]
    assert_same(part.take(torch.tensor([5, 0])), Batch(*chosen))
    if backed:
        other.file.close()


def test_genes_in_the_same_order_are_not_moved(
    cells: AnnData, registration: Registration[CountKeys]
) -> None:
    assert registration.gene_order(cells) is None
    column = registration.read(cells, FIELDS, Batch).columns["counts"]
    assert np.shares_memory(column.data, cells.X.data)


def test_missing_genes_are_refused_naming_them(cells: AnnData) -> None:
    wide = AnnData(np.ones((2, 2000), np.float32))
    wide.var_names = [f"gene-{i}" for i in range(1998)] + ["CD3E", "GNLY"]
    registration = Registration.of(wide, CountKeys(), count_fields(CountKeys()))
    few = wide[:, :1998].copy()
    expected = (
        r"Expected the 2,000 genes the model was trained on; got 1,998: missing 'CD3E', 'GNLY'\. "
        r".*train a model on the genes in common"
    )
    with pytest.raises(DataMismatchError, match=expected):
        registration.gene_order(few)
    few = wide.copy()
    few.var_names = [*wide.var_names[:1998], "Cd3e", "GNLY"]
    with pytest.raises(DataMismatchError, match=r"missing 'CD3E'\. Did you mean 'Cd3e'\?"):
        registration.gene_order(few)


def test_a_gene_that_is_there_twice_is_refused_only_if_the_model_needs_it(
    cells: AnnData, registration: Registration[CountKeys]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        double = cells[:, [0, 1, 2, 3, 4, 4, 0]].copy()
    with pytest.raises(InvalidDataError, match=r"got 'g4', 'g0' more than once|got 'g0', 'g4'"):
        registration.gene_order(double)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        double.var_names = ["g0", "g1", "g2", "g3", "g4", "x", "x"]
    assert registration.gene_order(double).tolist() == [0, 1, 2, 3, 4]


def test_new_data_are_checked_before_they_are_read(
    cells: AnnData, registration: Registration[CountKeys]
) -> None:
    cells.X.data[3] = np.nan
    with pytest.raises(InvalidDataError, match="got 1 NaN value, first in cell 'c0', gene 'g3'"):
        registration.read(cells, FIELDS, Batch)
    rows = registration.read(cells, FIELDS, Batch, check_counts=False)
    assert rows.take(torch.tensor([0])).counts.isnan().sum() == 1


def test_unknown_categories_and_missing_columns_of_new_data_are_refused(
    cells: AnnData, registration: Registration[CountKeys]
) -> None:
    cells.obs["donor"] = ["d1", "d2", "d3", "d3"] * 3
    with pytest.raises(DataMismatchError, match=r"\('d2', 'd1'\); got 'd3' in 6 cells"):
        registration.read(cells, FIELDS, Batch)
    del cells.obs["donor"]
    with pytest.raises(UnknownKeyError, match="Expected a column of adata.obs; got 'donor'"):
        registration.read(cells, FIELDS, Batch)


def test_it_comes_back_from_json(registration: Registration[CountKeys]) -> None:
    text = json.dumps(registration.to_json(), allow_nan=False)
    assert Registration.from_json(json.loads(text), CountKeys) == registration


def test_it_comes_back_from_json_with_every_type_of_category(cells: AnnData) -> None:
    cells.obs["donor"] = [1, 2] * 6
    cells.obs["type"] = [1.5, 2.0] * 6
    again = Registration.from_json(
        json.loads(json.dumps(Registration.of(cells, KEYS, FIELDS).to_json())), CountKeys
    )
    assert repr(again.categories("batch")) == "(1, 2)"
    assert repr(again.categories("labels")) == "(1.5, 2.0)"
    again.read(cells, FIELDS, Batch)


def changed(values: dict[str, Any], change: str, to: object) -> dict[str, Any]:
    """Copy of a JSON object with the entry at a path changed, or left out if `to` is ..."""
    copied = json.loads(json.dumps(values))
    *folders, name = change.split("/")
    place = copied
    for folder in folders:
        place = place[folder]
    if to is ...:
        del place[name]
    else:
        place[name] = to
    return copied


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [
        ("axes", ..., "Expected an entry 'axes' in registration"),
        ("axes", [], "Expected at least one axis"),
        ("axes", [{"name": "genes", "features": []}], r"one feature in registration.axes\[0\]"),
        ("axes", [{"name": "genes", "features": ["a", "a"]}], "different strings"),
        ("axes", [{"name": "genes", "features": ["a", 1]}], "a list of strings"),
        ("axes", [{"name": 1, "features": ["a"]}], "a string in registration.axes"),
        ("n_cells", True, "an integer of at least 1 in registration.n_cells; got True"),
        ("n_cells", 0, "an integer of at least 1"),
        ("n_cells", 2.5, "an integer of at least 1"),
        ("extra", 1, "no more entries in registration; got 'extra'"),
        ("fields", [], "an object in registration.fields"),
        ("fields/batch/kind", "cats", "registration.fields.batch.kind to be one of"),
        ("fields/batch/categories", ..., "entry 'categories' in registration.fields.batch"),
        ("keys/batchkey", "x", r"registration.keys: .*got 'batchkey'\. Did you mean 'batch_key'\?"),
        ("keys/batch_key", 3, "registration.keys: .*got 3"),
        ("keys", "batch", "an object in registration.keys"),
    ],
)
def test_json_of_another_form_is_refused(
    registration: Registration[CountKeys], change: str, to: object, message: str
) -> None:
    with pytest.raises(FileFormatError, match=message):
        Registration.from_json(changed(registration.to_json(), change, to), CountKeys)


def test_making_it_changes_nothing_in_the_anndata(cells: AnnData) -> None:
    cells.X = cells.X.tocsc()
    before = cells.copy()
    kept = cells.X
    registration = Registration.of(cells, KEYS, FIELDS)
    registration.read(cells, FIELDS, Batch).take(torch.arange(12))
    assert cells.X is kept and cells.X.format == "csc"
    np.testing.assert_array_equal(cells.X.data, before.X.data)
    np.testing.assert_array_equal(cells.X.indices, before.X.indices)
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert not cells.uns and not cells.obsm


def test_cells_without_counts_are_warned_of_and_kept(cells: AnnData) -> None:
    cells.X = cells.X.toarray()
    cells.X[4] = 0
    with pytest.warns(DataWarning, match="got 1 of 12 cells without any in adata.X: 'c4'"):
        registration = Registration.of(cells, KEYS, FIELDS)
    assert registration.n_cells == 12


def test_real_cells_are_registered(shared_data: Path) -> None:
    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")
    keys = CountKeys(batch_key="batch", labels_key="cell_type")
    registration = Registration.of(adata, keys, count_fields(keys))
    assert (registration.n_cells, registration.n_genes) == (12_261, 1_287)
    assert registration.n_categories("batch") == registration.n_categories("labels") == 8
    rows = registration.read(adata, count_fields(keys), Batch, check_counts=False)
    chosen = torch.tensor([12_260, 5, 700])
    np.testing.assert_array_equal(rows.take(chosen).counts, adata.X[chosen.numpy()].toarray())

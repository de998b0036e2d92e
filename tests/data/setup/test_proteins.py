"""Proteins: names, checks, and which were measured in which panel, of AnnData and MuData."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, get_args

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from cellvae.data import Registration
from cellvae.data.files.h5mu import write_cells
from cellvae.data.mudata_adapter import keep_columns
from cellvae.data.setup.align_genes import align_modalities
from cellvae.data.setup.fields.protein_keys import ProteinKeys, protein_fields
from cellvae.data.setup.minified import (
    MinifiedRecord,
    MinifiedType,
    StoredPosterior,
    make_minified,
    minified_record,
    read_minified,
)
from cellvae.data.setup.query_registration import extend_registration
from cellvae.errors import DataMismatchError, DataWarning, InvalidDataError, UnknownKeyError

CELLS = [f"cell-{i}" for i in range(8)]
KEYS = ProteinKeys(protein_expression_obsm_key="proteins", batch_key="batch")
IN_MUDATA = ProteinKeys(
    batch_key="batch", modalities={"rna_layer": "rna", "protein_layer": "protein"}
)


class Batch(NamedTuple):
    """What a model of both reads."""

    counts: torch.Tensor
    batch: torch.Tensor
    labels: torch.Tensor
    panel: torch.Tensor
    proteins: torch.Tensor


def protein_counts() -> pd.DataFrame:
    """Counts of three proteins, of which CD4 was not measured in batch b."""
    values = np.arange(1, 25).reshape(8, 3)
    values[4:, 1] = 0
    return pd.DataFrame(values, index=CELLS, columns=["CD3", "CD4", "CD19"])


def make_adata(proteins: Any = None) -> AnnData:
    obs = pd.DataFrame({"batch": list("aaaabbbb"), "panel": list("xyxyxyxy")}, index=CELLS)
    adata = AnnData(np.arange(16, dtype=np.float32).reshape(8, 2) + 1, obs=obs)
    adata.obsm["proteins"] = protein_counts() if proteins is None else proteins
    return adata


def make_mudata() -> MuData:
    """The same cells as a MuData; those of the proteins are in another order."""
    rna = make_adata()
    order = CELLS[::-1]
    table = protein_counts().loc[order]
    protein = AnnData(table.to_numpy(np.float32), obs=pd.DataFrame(index=order))
    protein.var_names = [*table.columns]
    mdata = MuData({"rna": AnnData(rna.X, obs=pd.DataFrame(index=CELLS)), "protein": protein})
    mdata.obs["batch"] = rna.obs["batch"].reindex(mdata.obs_names)
    return mdata


def read(cells: Any, keys: ProteinKeys) -> tuple[Registration[ProteinKeys], Batch]:
    registration = Registration.of(cells, keys, protein_fields(keys))
    rows = registration.read(cells, protein_fields(keys), Batch)
    return registration, rows.take(torch.arange(8))


def measured(registration: Registration[Any]) -> list[list[bool]]:
    record: Any = registration.fields["proteins"]
    mask: list[list[bool]] = record.measurement_mask(3).tolist()
    return mask


@pytest.mark.parametrize(
    "as_type",
    [
        lambda table: table,
        lambda table: table.astype("Int64"),
        lambda table: table.to_numpy(),
        lambda table: table.to_numpy(np.float64),
        lambda table: sparse.csr_matrix(table.to_numpy()),
    ],
    ids=["table", "nullable", "int", "float64", "sparse"],
)
def test_counts_and_masks_are_the_same_whatever_holds_them(as_type: Any) -> None:
    registration, batch = read(make_adata(as_type(protein_counts())), KEYS)
    torch.testing.assert_close(batch.proteins, torch.tensor(protein_counts().to_numpy(np.float32)))
    assert measured(registration) == [[True] * 3, [True, False, True]]
    names = registration.axes["proteins"].features
    assert names in (("CD3", "CD4", "CD19"), ("0", "1", "2"))
    assert registration.genes == ("0", "1") and registration.n_features("proteins") == 3


def test_names_come_from_uns() -> None:
    adata = make_adata(protein_counts().to_numpy())
    adata.uns["names"] = np.array(["A", "B", "C"])
    keys = ProteinKeys(protein_expression_obsm_key="proteins", protein_names_uns_key="names")
    registration, batch = read(adata, keys)
    assert registration.axes["proteins"].features == ("A", "B", "C")
    assert measured(registration) == [[True] * 3]
    assert batch.panel.unique().tolist() == [0]
    adata.uns["names"] = ["A", "B"]
    with pytest.raises(InvalidDataError, match="a name for each of 3 proteins.*got 2"):
        read(adata, keys)
    adata.uns["names"] = ["A", "B", "B"]
    with pytest.raises(InvalidDataError, match="'B' more than once"):
        read(adata, keys)


def test_a_panel_of_its_own_says_what_was_measured() -> None:
    table = protein_counts()
    table.loc[[*CELLS[1::2]], "CD19"] = 0
    keys = ProteinKeys(protein_expression_obsm_key="proteins", batch_key="batch", panel_key="panel")
    registration, batch = read(make_adata(table), keys)
    assert measured(registration) == [[True] * 3, [True, True, False]]
    assert batch.panel.squeeze(-1).tolist() == [0, 1] * 4


def test_a_mudata_reads_as_the_anndata_does_with_cells_matched_by_name() -> None:
    mdata = make_mudata()
    registration, batch = read(mdata, IN_MUDATA)
    of_adata = make_adata()[[*mdata.obs_names]].copy()
    expected_registration, expected = read(of_adata, KEYS)
    for name, values in batch._asdict().items():
        torch.testing.assert_close(values, getattr(expected, name), msg=name)
    assert measured(registration) == measured(expected_registration)
    assert registration.axes["proteins"].features == ("CD3", "CD4", "CD19")
    again = Registration.from_json(json.loads(json.dumps(registration.to_json())), ProteinKeys)
    assert again == registration
    assert {f.name: again.fields[f.name].field(f.name) for f in protein_fields(IN_MUDATA)} == {
        f.name: f for f in protein_fields(IN_MUDATA)
    }


def test_a_column_of_a_modality_is_read_from_there() -> None:
    mdata = make_mudata()
    mdata.mod["rna"].obs["sample"] = list("aaaabbbb")
    keys = ProteinKeys(
        batch_key="sample",
        modalities={"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"},
    )
    registration, batch = read(mdata, keys)
    assert measured(registration) == [[True] * 3, [True, False, True]]
    assert "mod['rna'].obs['sample']" in registration.fields["batch"].describe()[0]
    assert batch.batch.squeeze(-1).tolist() == [int(c >= "cell-4") for c in mdata.obs_names]


def test_what_is_wrong_with_a_mudata_is_said() -> None:
    mdata = make_mudata()
    wrong = ProteinKeys(modalities={"rna_layer": "rma", "protein_layer": "protein"})
    with pytest.raises(UnknownKeyError, match=r"got 'rma'\. Did you mean 'rna'"):
        read(mdata, wrong)
    partial = MuData({"rna": mdata.mod["rna"].copy(), "protein": mdata.mod["protein"][2:].copy()})
    keys = ProteinKeys(modalities={"rna_layer": "rna", "protein_layer": "protein"})
    with pytest.raises(DataMismatchError, match="got 6: missing 'cell-6', 'cell-7'"):
        read(partial, keys)
    with pytest.raises(InvalidDataError, match=r"got a MuData .* mdata\['rna'\]"):
        read(mdata, KEYS)
    with pytest.raises(InvalidDataError, match="a MuData with the modality 'rna'"):
        read(make_adata(), IN_MUDATA)


def test_bad_values_name_cell_and_protein() -> None:
    table = protein_counts().astype(float)
    table.iloc[2, 1] = np.nan
    with pytest.raises(InvalidDataError, match="NaN value, first in cell 'cell-2', protein 'CD4'"):
        read(make_adata(table), KEYS)
    with pytest.raises(UnknownKeyError, match=r"got 'protein'\. Did you mean 'proteins'"):
        read(make_adata(), ProteinKeys(protein_expression_obsm_key="protein"))
    with pytest.raises(InvalidDataError, match="Expected numbers in adata.obsm"):
        read(make_adata(protein_counts().astype(str) + "x"), KEYS)
    with pytest.warns(DataWarning, match="raw counts of proteins"):
        read(make_adata(protein_counts() / 2), KEYS)


def test_proteins_are_matched_by_name() -> None:
    registration, _ = read(make_adata(), KEYS)
    other = make_adata(protein_counts()[["CD19", "CD3", "CD4"]])
    rows = registration.read(other, protein_fields(KEYS), Batch)
    torch.testing.assert_close(
        rows.take(torch.arange(8)).proteins,
        torch.tensor(protein_counts().to_numpy(np.float32)),
    )
    less = make_adata(protein_counts()[["CD19", "CD3"]])
    with pytest.raises(DataMismatchError, match=r"panel 'a'\); got 2 of the 3 .* missing 'CD4'"):
        registration.read(less, protein_fields(KEYS), Batch)
    of_b = less[4:].copy()
    batch = registration.read(of_b, protein_fields(KEYS), Batch).take(torch.arange(4))
    torch.testing.assert_close(
        batch.proteins, torch.tensor(protein_counts().to_numpy(np.float32)[4:])
    )
    with pytest.raises(DataMismatchError, match="the 3 proteins the model was trained on; got 0"):
        registration.read(make_adata(protein_counts().add_prefix("x")), protein_fields(KEYS), Batch)
    with pytest.raises(DataMismatchError, match=r"panel 'a'.*got 0 of the 3"):
        without = make_adata()
        del without.obsm["proteins"]
        registration.read(without, protein_fields(KEYS), Batch)


def test_query_data_add_panels_and_what_they_measured() -> None:
    registration, _ = read(make_adata(), KEYS)
    query = make_adata()
    query.obs["batch"] = list("cccccccc")
    table = protein_counts()
    table["CD3"] = 0
    query.obsm["proteins"] = table
    extended = extend_registration(registration, query, protein_fields(KEYS))
    assert measured(extended) == [[True] * 3, [True, False, True], [False, True, True]]
    assert extended.categories("panel") == ("a", "b", "c")


@pytest.mark.parametrize("batch", ["cccccccc", "aaaabbbb", "aaaacccc"])
@pytest.mark.parametrize(
    "columns", [["CD19", "CD3", "CD4"], ["CD19", "CD4"], ["CD4"], []], ids=",".join
)
def test_proteins_that_a_query_lacks_are_not_measured_there(columns: list[str], batch: str) -> None:
    registration, _ = read(make_adata(), KEYS)
    query = make_adata(protein_counts()[columns])
    if not columns:
        del query.obsm["proteins"]
    query.obs["batch"] = list(batch)
    extended = extend_registration(registration, query, protein_fields(KEYS))
    masks = dict(zip(extended.categories("panel"), measured(extended), strict=True))
    reference = {"a": [True] * 3, "b": [True, False, True]}
    table = protein_counts()[columns].reindex(columns=["CD3", "CD4", "CD19"])
    for panel in extended.categories("panel"):
        cells = np.array(list(batch)) == panel
        counts = (table[cells] > 0).any().to_numpy()
        known = reference.get(str(panel), [False] * 3)
        there = np.array([name in columns for name in table.columns])
        expected = (np.array(known) & there) | counts if cells.any() else np.array(known)
        assert masks[panel] == expected.tolist(), panel
    taken = extended.read(query, protein_fields(KEYS), Batch).take(torch.arange(8))
    expected_counts = table.fillna(0).to_numpy(np.float32)
    torch.testing.assert_close(taken.proteins, torch.tensor(expected_counts))


def test_proteins_without_names_cannot_be_matched_if_some_are_missing() -> None:
    registration, _ = read(make_adata(protein_counts().to_numpy()), KEYS)
    query = make_adata(protein_counts().to_numpy()[:, :2])
    with pytest.raises(DataMismatchError, match="got 2 without names"):
        extend_registration(registration, query, protein_fields(KEYS))


def test_backed_modalities_and_views_of_a_mudata_are_read(tmp_path: Path) -> None:
    mdata = make_mudata()
    mdata.mod["protein"].X = sparse.csr_matrix(mdata.mod["protein"].X)
    write_cells(mdata, tmp_path / "cells.h5mu", {})
    _, expected = read(mdata, IN_MUDATA)
    with keep_columns(mudata):
        backed = mudata.read_h5mu(tmp_path / "cells.h5mu", backed="r")
        view = mdata[[5, 1, 3, 0, 2, 4, 6, 7]]
    registration, batch = read(backed, IN_MUDATA)
    assert measured(registration) == [[True] * 3, [True, False, True]]
    for name, values in batch._asdict().items():
        torch.testing.assert_close(values, getattr(expected, name), msg=name)
    _, batch = read(view, IN_MUDATA)
    for name, values in batch._asdict().items():
        torch.testing.assert_close(
            values, getattr(expected, name)[[5, 1, 3, 0, 2, 4, 6, 7]], msg=name
        )


@pytest.mark.parametrize("inplace", [True, False])
def test_modalities_of_a_query_get_the_features_of_the_reference(inplace: bool) -> None:
    registration, expected = read(make_mudata(), IN_MUDATA)
    query = make_mudata()
    rna = query.mod["rna"]
    rna = rna[:, [1, 0]].copy()
    table = query.mod["protein"][:, ["CD19", "CD3"]].copy()
    with keep_columns(mudata):
        query = MuData({"rna": rna, "protein": table})
        query.obs["batch"] = list("cccccccc")
        fields = protein_fields(IN_MUDATA)
        with pytest.warns(DataWarning, match="2 of the 3 proteins"):
            aligned = align_modalities(query, registration, fields, inplace=inplace)
    cells = query if inplace else aligned
    assert (aligned is None) == inplace
    assert [*cells.mod["protein"].var_names] == ["CD3", "CD4", "CD19"]
    assert [*query.mod["rna"].var_names] == (["0", "1"] if inplace else ["1", "0"])
    extended = extend_registration(registration, cells, fields)
    assert measured(extended)[2] == [True, False, True]
    taken = extended.read(cells, fields, Batch).take(torch.arange(8))
    torch.testing.assert_close(taken.counts, expected.counts)
    torch.testing.assert_close(taken.proteins[:, [0, 2]], expected.proteins[:, [0, 2]])
    with keep_columns(mudata):
        alone = MuData({"rna": rna})
        alone.obs["batch"] = list("cccccccc")
        align_modalities(alone, registration, fields)
        no_genes = MuData({"protein": table})
    assert measured(extend_registration(registration, alone, fields))[2] == [False] * 3
    with pytest.raises(DataMismatchError, match="modality 'rna' with the genes"):
        align_modalities(no_genes, registration, fields)
    with pytest.raises(InvalidDataError, match="Expected a MuData; got AnnData"):
        align_modalities(make_adata(), registration, fields)


@pytest.mark.parametrize("data_type", get_args(MinifiedType))
def test_a_minified_mudata_is_read_also_if_a_gene_and_a_protein_have_one_name(
    data_type: MinifiedType,
) -> None:
    mdata = make_mudata()
    with keep_columns(mudata):
        rna = mdata.mod["rna"].copy()
        rna.var_names = ["CD4", "MS4A1"]
        obs = mdata.obs
        mdata = MuData({"rna": rna, "protein": mdata.mod["protein"]})
        mdata.obs["batch"] = obs["batch"]
    registration, expected = read(mdata, IN_MUDATA)
    record = MinifiedRecord(data_type=data_type, qzm_key="m", qzv_key="v", weights="")
    means = np.arange(16, dtype=np.float32).reshape(8, 2)
    posterior = StoredPosterior(means, means + 1, np.full(8, 5, np.float32))
    minified = make_minified(mdata, record, posterior)
    assert minified_record(minified) == record and minified_record(mdata) is None
    kept = record.has_counts
    for name, table in minified.mod.items():
        assert bool((table.X != 0).sum()) == kept
        assert [*table.var_names] == [*mdata.mod[name].var_names]
    rows = read_minified(registration, minified, record, protein_fields(IN_MUDATA), dict)
    taken: Any = rows.take(torch.arange(8))
    assert taken["latent_mean"].tolist() == means.tolist()
    torch.testing.assert_close(taken["panel"], expected.panel)
    if kept:
        torch.testing.assert_close(taken["proteins"], expected.proteins)

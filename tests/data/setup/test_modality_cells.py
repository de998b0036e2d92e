"""Which cells have which modality: counted, told, and refused where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from cellvae.data import Registration
from cellvae.data.setup.fields.modality_cells import count_modality_cells
from cellvae.errors import DataWarning, FileFormatError, InvalidDataError
from cellvae.model import MULTIVI

N_CELLS = 30


def tables(wrap: Any = sparse.csr_matrix) -> dict[str, AnnData]:
    """Counts of three modalities: 12 cells lack genes, 9 regions, 6 both."""
    rng = np.random.default_rng(0)
    sizes = {"rna": 5, "atac": 7, "protein": 3}
    counts = {name: rng.poisson(2, (N_CELLS, n)) + 1.0 for name, n in sizes.items()}
    counts["rna"][:12], counts["atac"][6:15] = 0, 0
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)])
    return {
        name: AnnData(
            wrap(values.astype(np.float32)),
            obs=obs.copy(),
            var=pd.DataFrame(index=[f"{name}{i}" for i in range(values.shape[1])]),
        )
        for name, values in counts.items()
    }


def set_up(cells: dict[str, AnnData]) -> MuData:
    mdata = MuData(cells)
    MULTIVI.setup_mudata(mdata, modalities={f"{name}_layer": name for name in cells})
    return mdata


EXPECTED = {
    "genes + regions + proteins": 15,
    "genes + proteins": 3,
    "regions + proteins": 6,
    "proteins": 6,
}


@pytest.mark.parametrize(
    "wrap", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]
)
def test_cells_are_counted_by_their_modalities(wrap: Any) -> None:
    model = MULTIVI(set_up(tables(wrap)))
    assert dict(model.registration.modality_cells) == EXPECTED
    assert [*model.registration.modality_cells] == [*EXPECTED]


def test_stored_zeros_and_absent_cells_are_no_counts() -> None:
    of_all, of_some = tables(), tables()
    stored = sparse.csr_matrix(of_all["rna"].X.toarray() + 1)
    stored.data -= 1
    of_all["rna"].X = stored
    assert stored.nnz > of_some["rna"].X.nnz
    of_some["rna"] = of_some["rna"][12:].copy()
    of_some["atac"] = of_some["atac"][[*range(6), *range(15, N_CELLS)]].copy()
    for cells in (of_all, of_some):
        registration = MULTIVI(set_up(cells)).registration
        assert dict(registration.modality_cells) == EXPECTED


def test_numbers_are_those_of_a_loop_over_cells() -> None:
    rng = np.random.default_rng(1)
    masks = {name: rng.random(200) < 0.5 for name in ("genes", "regions", "proteins")}
    wanted: dict[str, int] = {}
    for row in zip(*masks.values(), strict=True):
        key = " + ".join(name for name, has in zip(masks, row, strict=True) if has) or "none"
        wanted[key] = wanted.get(key, 0) + 1
    found = count_modality_cells(masks)
    assert found == wanted
    assert [*found] == [
        "genes + regions + proteins",
        "genes + regions",
        "genes + proteins",
        "regions + proteins",
        "genes",
        "regions",
        "proteins",
        "none",
    ]
    assert count_modality_cells({}) == {}


def test_the_table_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    model = MULTIVI(set_up(tables()))
    model.view_anndata_setup()
    text = capsys.readouterr().out
    assert "30 cells x 5 genes, 7 regions, 3 proteins" in text
    for modalities, n_cells in EXPECTED.items():
        assert any(
            modalities in line and line.split()[-2] == str(n_cells)
            for line in text.replace("|", "│").splitlines()
            if "│" in line
        )
    summary = model.summary_string
    assert "MULTIVI model of 30 cells x 5 genes, 7 regions, 3 proteins" in summary
    assert "15 cells of genes + regions + proteins, 3 cells of genes + proteins" in summary


def test_they_are_saved_and_counted_again_in_a_query(tmp_path: Path) -> None:
    model = MULTIVI(set_up(tables()), n_hidden=4, n_latent=2)
    stored = model.registration.to_json()
    again = Registration.from_json(stored, MULTIVI.Keys)
    assert again == model.registration
    with pytest.raises(FileFormatError, match="modality_cells"):
        Registration.from_json(stored | {"modality_cells": {"genes": "many"}}, MULTIVI.Keys)
    without = {name: value for name, value in stored.items() if name != "modality_cells"}
    assert Registration.from_json(without, MULTIVI.Keys).modality_cells == {}


def test_a_modality_without_counts_is_refused() -> None:
    cells = tables()
    cells["atac"].X = sparse.csr_matrix((N_CELLS, 7), dtype=np.float32)
    with pytest.raises(InvalidDataError, match=r"counts of regions in some cells.*mod\['atac'\]"):
        set_up(cells)
    adata = AnnData(np.ones((4, 3), dtype=np.float32))
    adata.var["feature_types"] = ["Gene Expression", "Peaks", "Peaks"]
    adata.X[:, 1:] = 0
    with pytest.raises(InvalidDataError, match="regions in some cells; got none in X, Peaks"):
        MULTIVI.setup_anndata(adata)


def test_cells_without_any_counts_are_named() -> None:
    cells = {name: table for name, table in tables().items() if name != "protein"}
    message = "genes or regions in every cell; got 6 cells of 30 without any: 'cell6', 'cell7'"
    with pytest.warns(DataWarning, match=message):
        set_up(cells)
    single = {"rna": tables()["rna"]}
    with pytest.warns(DataWarning, match="counts of genes in every cell; got 12 cells of 30"):
        set_up(single)

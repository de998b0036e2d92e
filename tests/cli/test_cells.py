"""Cells of a job: set-up of an AnnData or a MuData, and digests of what a model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.cli.cells import check_counts_file, describe_data, set_up, setup_name
from cellvae.cli.checks import check_setup
from cellvae.cli.model_flags import setup_flags
from cellvae.data.mudata_adapter import keep_columns
from cellvae.errors import InvalidOptionError, UnknownKeyError
from cellvae.model import SCVI

CELLS = [f"cell-{i}" for i in range(4)]
SETUP = {
    "protein_layer": "raw",
    "batch_key": "donor",
    "modalities": {"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"},
}


class TwoModalities:
    """Class of a model that reads an AnnData or a MuData."""

    Keys = SCVI.Keys

    @classmethod
    def setup_anndata(cls, adata: Any, batch_key: str | None = None) -> None:
        """Set up."""

    @classmethod
    def setup_mudata(
        cls,
        mdata: Any,
        rna_layer: str | None = None,
        protein_layer: str | None = None,
        batch_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        modalities: Mapping[str, str] | None = None,
    ) -> None:
        """Set up.

        Parameters
        ----------
        modalities
            Modality of each key.
        """
        mdata.uns["seen"] = [rna_layer, protein_layer, batch_key, modalities]


def make() -> Any:
    rna = AnnData(
        sparse.csr_matrix(np.arange(12.0).reshape(4, 3)),
        obs=pd.DataFrame({"donor": list("xyxy")}, index=CELLS),
        var=pd.DataFrame(index=["gene-0", "gene-1", "gene-2"]),
    )
    order = CELLS[::-1]
    protein = AnnData(np.ones((4, 2)), obs=pd.DataFrame(index=order))
    protein.layers["raw"] = np.arange(8.0).reshape(4, 2)
    with keep_columns(mudata):
        return mudata.MuData({"protein": protein, "rna": rna})


def test_columns_of_modalities_are_matched_by_name_for_figures() -> None:
    cells = make()
    set_up(TwoModalities, cells, SETUP)
    assert cells.uns["seen"] == [None, "raw", "donor", SETUP["modalities"]]
    assert list(cells.obs_names) == CELLS[::-1]
    assert cells.obs["donor"].tolist() == list("yxyx")


def test_digests_change_with_what_is_read_alone() -> None:
    expected = describe_data(make(), SETUP)
    assert {"cells", "counts of rna", "features of protein", "values of obs['donor']"} < {*expected}
    dense = make()
    dense["rna"].X = dense["rna"].X.toarray().astype(np.float32)
    dense["protein"].X = dense["protein"].X + 7
    assert describe_data(dense, SETUP) == expected
    other = make()
    other["protein"].layers["raw"][0, 0] += 1
    changed = describe_data(other, SETUP)
    assert {name for name in expected if changed[name] != expected[name]} == {"counts of protein"}


def test_digests_of_an_anndata_have_the_proteins_of_obsm() -> None:
    adata = make()["rna"].copy()
    adata.obsm["proteins"] = pd.DataFrame({"CD3": [1, 2, 3, 4]}, index=CELLS)
    setup = {"protein_expression_obsm_key": "proteins", "batch_key": "donor"}
    expected = describe_data(adata, setup)
    adata.obsm["proteins"].iloc[0, 0] = 9
    changed = describe_data(adata, setup)
    differing = {name for name in expected if changed[name] != expected[name]}
    assert differing == {"values of obsm['proteins']"}


def test_unknown_modalities_and_columns_are_named() -> None:
    with pytest.raises(UnknownKeyError, match=r"got 'rma'\. Did you mean 'rna'"):
        describe_data(make(), {"batch_key": "donor", "modalities": {"batch_key": "rma"}})
    with pytest.raises(UnknownKeyError, match="got 'donnor'"):
        describe_data(make(), {"batch_key": "donnor", "modalities": {"batch_key": "rna"}})


def test_the_file_chooses_the_method_of_set_up(tmp_path: Path) -> None:
    assert setup_name(TwoModalities, ".h5mu") == "setup_mudata"
    assert setup_name(TwoModalities, ".h5ad") == "setup_anndata"
    with pytest.raises(InvalidOptionError, match="for SCVI, which reads one modality"):
        setup_name(SCVI, ".h5mu")
    check_setup(TwoModalities, SETUP, "setup_mudata")
    with pytest.raises(InvalidOptionError, match="has no --protein-layer"):
        check_setup(TwoModalities, SETUP)
    (tmp_path / "cells.h5mu").touch()
    check_counts_file(tmp_path / "cells.h5mu")
    (tmp_path / "cells.csv").touch()
    with pytest.raises(InvalidOptionError, match=r"ends in \.h5ad, \.h5mu or \.zarr"):
        check_counts_file(tmp_path / "cells.csv")


def test_flags_are_those_of_both_methods() -> None:
    flags = {flag.name: flag for flag in setup_flags(TwoModalities)}
    assert [*flags][0] == "batch_key" and "mdata" not in flags
    assert flags["categorical_covariate_keys"].is_repeatable
    assert flags["modalities"].metavar == "JSON"
    assert flags["modalities"].parse('{"rna_layer": "rna"}') == {"rna_layer": "rna"}
    assert flags["modalities"].describe() == "Modality of each key. As JSON."

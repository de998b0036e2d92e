"""Cells in files stand in for the AnnData that `anndata.concat` makes of them."""

import re
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cellvae.data.files.open_cells import open_cells
from cellvae.errors import DataMismatchError, InvalidDataError, InvalidOptionError, UnknownKeyError


def part(number: int, genes: list[str], n_cells: int = 30) -> anndata.AnnData:
    rng = np.random.default_rng(number)
    counts = sparse.csr_matrix(rng.poisson(0.7, (n_cells, len(genes))).astype(np.float32))
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(rng.choice(["x", f"only{number}"], n_cells)),
            "score": rng.random(n_cells),
        },
        index=[f"p{number}_{i}" for i in range(n_cells)],
    )
    adata = anndata.AnnData(
        counts,
        obs=obs,
        var=pd.DataFrame({"kind": ["gene"] * len(genes)}, index=genes),
        obsm={"X_pca": rng.random((n_cells, 3))},
        layers={"doubled": counts * 2},
    )
    adata.obsm["proteins"] = pd.DataFrame(
        rng.poisson(3, (n_cells, 2)), index=obs.index, columns=["CD3", "CD4"]
    )
    return adata


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, anndata.AnnData]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that zarr imports
        pytest.importorskip("zarr")
    made = {"a": part(1, ["g1", "g2", "g3"]), "b": part(2, ["g4", "g3", "g2"], 20)}
    made["c"] = part(3, ["g2", "g3"], 10)
    for name, adata in made.items():
        if name == "b":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of the format of zarr
                adata.write_zarr(tmp_path / "b.zarr")
        else:
            adata.write_h5ad(tmp_path / f"{name}.h5ad", compression="gzip")
    return made


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_files_are_what_concat_makes_of_them(
    tmp_path: Path, parts: dict[str, anndata.AnnData], join: str
) -> None:
    cells = open_cells([tmp_path / "*.h5ad", tmp_path / "b.zarr"], join=join)  # type: ignore[arg-type]
    chosen = {name: parts[name] for name in ("a", "c", "b")}
    expected = anndata.concat(chosen, join=join, label="file", merge="same", fill_value=0)
    pd.testing.assert_frame_equal(cells.obs, expected.obs)
    assert [*cells.var_names] == [*expected.var_names]
    loaded = cells.to_memory()
    np.testing.assert_array_equal(loaded.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(
        loaded.layers["doubled"].toarray(), expected.layers["doubled"].toarray()
    )
    np.testing.assert_array_equal(loaded.obsm["X_pca"], expected.obsm["X_pca"])
    pd.testing.assert_frame_equal(loaded.obsm["proteins"], expected.obsm["proteins"])
    assert cells.shape == expected.shape
    assert [*cells.obs["file"].cat.categories] == ["a", "c", "b"]


def test_one_file_is_as_it_was_written(tmp_path: Path, parts: dict[str, anndata.AnnData]) -> None:
    cells = open_cells(str(tmp_path / "a.h5ad"))
    pd.testing.assert_frame_equal(cells.obs, parts["a"].obs)
    pd.testing.assert_frame_equal(cells.var, parts["a"].var)
    assert "file" not in cells.obs
    assert repr(cells).startswith("CellFiles with n_obs x n_vars = 30 x 3 in 1 file\n")


SELECTIONS = {
    "mask": np.arange(60) % 3 == 0,
    "indices": [5, 3, -1, 50],
    "slice": slice(10, 45, 2),
    "names": ["p2_3", "p1_0"],
    "series": pd.Series(np.arange(60) < 7),
    "none": np.zeros(60, bool),
}


@pytest.mark.parametrize("name", [*SELECTIONS])
def test_subsets_are_those_of_anndata(
    tmp_path: Path, parts: dict[str, anndata.AnnData], name: str
) -> None:
    cells = open_cells([tmp_path / "a.h5ad", tmp_path / "b.zarr", tmp_path / "c.h5ad"])
    cells.obsm["X_own"] = np.arange(120).reshape(60, 2)
    cells.uns["note"] = 1
    whole = cells.to_memory()
    selected = SELECTIONS[name]
    key = selected.to_numpy() if isinstance(selected, pd.Series) else selected
    subset, expected = cells[selected], whole[key]
    assert [*subset.obs_names] == [*expected.obs_names]
    np.testing.assert_array_equal(subset.to_memory().X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(subset.obsm["X_own"], expected.obsm["X_own"])
    np.testing.assert_array_equal(subset.obsm["X_pca"], expected.obsm["X_pca"])
    twice = subset[::-1, ["g3"]]
    np.testing.assert_array_equal(twice.to_memory().X.toarray(), expected[::-1, ["g3"]].X.toarray())
    subset.uns["note"] = 2
    assert cells.uns["note"] == 1


def test_wrong_selections_are_refused(tmp_path: Path, parts: dict[str, anndata.AnnData]) -> None:
    cells = open_cells(tmp_path / "a.h5ad")
    with pytest.raises(InvalidOptionError, match="mask of the 30 cells; got 3 values"):
        cells[np.array([True, False, True])]
    with pytest.raises(InvalidOptionError, match="indices of cells below 30"):
        cells[[30]]
    with pytest.raises(UnknownKeyError, match="Did you mean 'p1_1'"):
        cells[["p1_1x"]]
    with pytest.raises(UnknownKeyError, match="Did you mean 'doubled'"):
        cells.layers["double"]


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix])
def test_raw_counts_take_the_place_of_x(tmp_path: Path, layout: type) -> None:
    for number in (1, 2):
        whole = part(number, ["g1", "g2", f"own{number}", "g3"])
        kept = whole[:, ["g3", "g1"]].copy()
        whole.X = layout(whole.X)
        kept.raw = whole
        kept.X = kept.X * 0.5
        kept.write_h5ad(tmp_path / f"{number}.h5ad")
        if layout is sparse.csc_matrix:
            with pytest.raises(InvalidDataError, match="in raw/X of .* got CSC") as error:
                open_cells(tmp_path / f"{number}.h5ad", raw=True).X  # noqa: B018
            exec(str(error.value).split("once: ")[1][:-1], {"anndata": anndata})
    cells = open_cells(tmp_path / "*.h5ad", raw=True)
    assert [*cells.var_names] == ["g1", "g2", "g3"]
    expected = anndata.concat([part(i, ["g1", "g2", f"own{i}", "g3"]) for i in (1, 2)])
    np.testing.assert_array_equal(cells.to_memory().X.toarray(), expected.X.toarray())
    assert not cells.layers
    assert [*open_cells(tmp_path / "*.h5ad").var_names] == ["g3", "g1"]
    part(3, ["g1"]).write_h5ad(tmp_path / "3.h5ad")
    with pytest.raises(InvalidDataError, match=r"3\.h5ad'; it has no raw"):
        open_cells(tmp_path / "*.h5ad", raw=True)


def test_names_that_files_share_get_the_name_of_the_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        part(1, ["g1"], 3).write_h5ad(tmp_path / f"{name}.h5ad")
    names = [*open_cells(tmp_path / "*.h5ad").obs_names]
    assert names == [f"p1_{i}-{name}" for name in "ab" for i in range(3)]


def test_what_cannot_be_opened_is_named(tmp_path: Path, parts: dict[str, anndata.AnnData]) -> None:
    with pytest.raises(FileNotFoundError, match="there are none"):
        open_cells(tmp_path / "*.loom")
    with pytest.raises(FileNotFoundError, match="no.h5ad"):
        open_cells(tmp_path / "no.h5ad")
    with pytest.raises(InvalidOptionError, match="at least one path"):
        open_cells([])
    with pytest.raises(InvalidOptionError, match="each file once"):
        open_cells([tmp_path / "a.h5ad", tmp_path / "*.h5ad"])
    with pytest.raises(InvalidOptionError, match="join to be 'inner' or 'outer'"):
        open_cells(tmp_path / "a.h5ad", join="left")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="Give another one with label="):
        open_cells(tmp_path / "*.h5ad", label="batch")
    (tmp_path / "t.h5ad").write_text("no")
    with pytest.raises(InvalidDataError, match=re.escape(str(tmp_path / "t.h5ad"))):
        open_cells(tmp_path / "t.h5ad")


def test_files_without_a_common_gene_are_refused(
    tmp_path: Path, parts: dict[str, anndata.AnnData]
) -> None:
    part(4, ["ENSG1", "ENSG2"]).write_h5ad(tmp_path / "d.h5ad")
    with pytest.raises(DataMismatchError, match="got none in common: 'a.h5ad' has 'g1', 'g2'"):
        open_cells(tmp_path / "*.h5ad")
    assert open_cells(tmp_path / "*.h5ad", join="outer").n_vars == 5


def test_a_gene_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        part(4, ["g1", "g1"]).write_h5ad(tmp_path / "d.h5ad")
    with pytest.raises(InvalidDataError, match="got 'g1' more than once"):
        open_cells(tmp_path / "d.h5ad")


@pytest.mark.parametrize("kind", ["h5mu", "zarr"])
def test_a_modality_of_a_mudata_is_opened(tmp_path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that zarr and mudata import, and of formats
        mudata = pytest.importorskip("mudata")
        pytest.importorskip("zarr")
        rna = part(1, ["g1", "g2", "g3"])
        proteins = anndata.AnnData(sparse.csc_matrix(part(2, ["CD3", "CD4"]).X), obs=rna.obs[[]])
        proteins.var_names = ["CD3", "CD4"]
        path = tmp_path / f"cells.{kind}"
        getattr(mudata.MuData({"rna": rna, "prot": proteins}), f"write_{kind}")(path)
        chosen = open_cells(path, modality="prot")
        with pytest.raises(InvalidDataError, match="X of the modality 'prot' of .* CSC") as error:
            chosen.X  # noqa: B018
        exec(str(error.value).split("once: ")[1][:-1], {"mudata": mudata})
    cells = open_cells(path, modality="rna")
    np.testing.assert_array_equal(cells.to_memory().X.toarray(), rna.X.toarray())
    np.testing.assert_array_equal(cells[[4, 2]].obsm["X_pca"], rna.obsm["X_pca"][[4, 2]])
    np.testing.assert_array_equal(cells.layers["doubled"].read(np.arange(30)).data, 2 * rna.X.data)
    table = open_cells(path, modality="prot").to_memory().to_df()
    np.testing.assert_array_equal(table, proteins.X.toarray())
    assert [*table.columns] == ["CD3", "CD4"]
    cells.obsm["table"] = table
    assert cells[:3].obsm["table"].equals(table.iloc[:3])
    with pytest.raises(InvalidOptionError, match="it has '.*'. Name it: open_cells"):
        open_cells(path)
    with pytest.raises(UnknownKeyError, match="Did you mean 'rna'"):
        open_cells(path, modality="rnaa")

"""Answers that are written to a file are those of memory, to the bit."""

from __future__ import annotations

import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from cellvae.data import open_cells
from cellvae.data.batches import read_ahead
from cellvae.data.files import streaming_writer
from cellvae.data.synthetic import synthetic_iid
from cellvae.errors import InvalidOptionError, OutputError
from cellvae.inference import cell_pass
from cellvae.model import MULTIVI, PEAKVI, SCANVI, SCVI, TOTALVI

N_CELLS = 300


def without_training(model: Any) -> Any:
    """Model that answers as a trained one does."""
    model.is_trained = True
    return model


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    made = synthetic_iid(batch_size=150, n_genes=40, n_proteins=0, n_regions=0, dropout_ratio=0.1)
    made.X[:, 0] = 1
    made.X = sparse.csr_matrix(made.X)
    return made


@pytest.fixture(params=["memory", "h5ad", "dense h5ad", "zarr"])
def cells(
    request: pytest.FixtureRequest,
    adata: anndata.AnnData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """The same cells in memory, and in two files of each kind."""
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    if request.param == "memory":
        return adata.copy()
    suffix = request.param.split()[-1]
    if suffix == "zarr":
        pytest.importorskip("zarr", minversion="3")
    for number in range(2):
        part = adata[number * 150 : number * 150 + 150].copy()
        if request.param == "dense h5ad":
            part.X = part.X.toarray()
        write(part, tmp_path / f"part{number}.{suffix}")
    return open_cells(tmp_path / f"*.{suffix}")


@pytest.fixture(params=["h5ad", "zarr"])
def suffix(request: pytest.FixtureRequest) -> str:
    if request.param == "zarr":
        pytest.importorskip("zarr", minversion="3")
    return str(request.param)


def write(adata: anndata.AnnData, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the format of zarr
        adata.write_zarr(path) if path.suffix == ".zarr" else adata.write_h5ad(path)


def read(path: Path) -> anndata.AnnData:
    return anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)


def asked(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    torch.manual_seed(3)
    return method(*args, **kwargs)


def same(first: Any, second: Any) -> None:
    first, second = np.asarray(first), np.asarray(second)
    assert first.dtype == second.dtype
    np.testing.assert_array_equal(first, second)


def test_answers_of_scvi(cells: Any, suffix: str, tmp_path: Path) -> None:
    SCVI.setup_anndata(cells, batch_key="batch")
    model = without_training(SCVI(cells, n_hidden=16, use_observed_lib_size=False))
    (tmp_path / "out").mkdir()
    train_kwargs = {
        "indices": np.random.default_rng(0).permutation(N_CELLS)[:250],
        "batch_size": 64,
    }
    names = [*cells.obs_names[train_kwargs["indices"]]]

    def written(method: Callable[..., Any], name: str, **kwargs: Any) -> anndata.AnnData:
        path = tmp_path / "out" / f"{name}.{suffix}"
        assert asked(method, out=path, **train_kwargs, **kwargs) == path
        found = read(path)
        assert [*found.obs_names] == names
        return found

    latent = written(model.get_latent_representation, "latent")
    same(latent.obsm["latent"], asked(model.get_latent_representation, **train_kwargs))
    drawn = written(model.get_latent_representation, "drawn", give_mean=False)
    expected = asked(model.get_latent_representation, give_mean=False, **train_kwargs)
    same(drawn.obsm["latent"], expected)
    posterior = written(model.get_latent_representation, "posterior", return_dist=True)
    mean, variance = asked(model.get_latent_representation, return_dist=True, **train_kwargs)
    same(posterior.obsm["latent"], mean)
    same(posterior.obsm["latent_variance"], variance)
    genes = {"gene_list": ["gene_7", "gene_3"], "transform_batch": ["batch_0", "batch_1"]}
    expression = written(model.get_normalized_expression, "expression", **genes)
    same(expression.X, asked(model.get_normalized_expression, **train_kwargs, **genes))
    assert [*expression.var_names] == genes["gene_list"]
    elbo = written(model.get_elbo, "elbo")
    same(elbo.obs["elbo"], asked(model.get_elbo, return_mean=False, **train_kwargs))
    error = written(model.get_reconstruction_error, "error")
    expected = asked(model.get_reconstruction_error, return_mean=False, **train_kwargs)
    same(error.obs["reconstruction_loss"], expected["reconstruction_loss"])
    sizes = written(model.get_latent_library_size, "sizes", give_mean=False)
    expected = asked(model.get_latent_library_size, give_mean=False, **train_kwargs)
    same(sizes.obs["library_size"], expected[:, 0])
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted(
        ["latent", "drawn", "posterior", "expression", "elbo", "error", "sizes"]
    )


@pytest.mark.parametrize("in_files", [False, True])
def test_answers_about_proteins(
    in_files: bool, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    cells: Any = synthetic_iid(batch_size=60, n_genes=30, n_proteins=6, n_regions=0)
    cells.obsm["protein_expression"] = pd.DataFrame(
        np.asarray(cells.obsm["protein_expression"]),
        index=cells.obs_names,
        columns=[f"protein_{i}" for i in range(6)],
    )
    cells.X = sparse.csr_matrix(cells.X)
    if in_files:
        write(cells, tmp_path / f"cells.{suffix}")
        cells = open_cells(tmp_path / f"cells.{suffix}")
    TOTALVI.setup_anndata(
        cells, batch_key="batch", protein_expression_obsm_key="protein_expression"
    )
    model = without_training(TOTALVI(cells, n_hidden=16))
    train_kwargs: dict[str, Any] = {"batch_size": 32, "transform_batch": ["batch_0", "batch_1"]}
    train_kwargs |= {"protein_list": ["protein_4", "protein_1"], "n_samples": 2}
    path = tmp_path / f"expression.{suffix}"
    genes = {"gene_list": ["gene_7", "gene_3", "gene_4"]}
    assert asked(model.get_normalized_expression, out=path, **train_kwargs, **genes) == path
    expected = asked(model.get_normalized_expression, **train_kwargs, **genes)
    found = read(path)
    same(found.X, expected[0])
    same(found.obsm["protein"], expected[1])
    assert [*found.obs_names] == [*cells.obs_names]
    assert [*found.var_names] == genes["gene_list"]
    assert [*found.uns["protein_names"]] == train_kwargs["protein_list"]
    path = tmp_path / f"foreground.{suffix}"
    assert asked(model.get_protein_foreground_probability, out=path, **train_kwargs) == path
    found = read(path)
    same(found.X, asked(model.get_protein_foreground_probability, **train_kwargs))
    assert [*found.var_names] == train_kwargs["protein_list"]
    with pytest.raises(InvalidOptionError, match="two dimensions for a file"):
        model.get_protein_foreground_probability(
            out=tmp_path / "new.h5ad", n_samples=2, return_mean=False
        )


def test_genes_of_a_modality(suffix: str, tmp_path: Path) -> None:
    adata = synthetic_iid(batch_size=40, n_genes=8, n_proteins=0, n_regions=0)
    adata.var["feature_types"] = ["Gene Expression"] * 5 + ["Peaks"] * 3
    MULTIVI.setup_anndata(adata, batch_key="batch")
    model = without_training(MULTIVI(adata, n_hidden=8))
    train_kwargs: dict[str, Any] = {"batch_size": 32, "use_z_mean": False, "n_samples": 3}
    train_kwargs["return_mean"] = True
    path = tmp_path / f"genes.{suffix}"
    assert asked(model.get_normalized_expression, out=path, **train_kwargs) == path
    found = read(path)
    same(found.X, asked(model.get_normalized_expression, **train_kwargs))
    assert [*found.obs_names] == [*adata.obs_names]
    assert [*found.var_names] == [*adata.var_names[:5]]


@pytest.mark.parametrize("as_numbers", [False, True])
def test_predicted_labels(
    cells: Any, suffix: str, as_numbers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = cells.obs["labels"].astype(str)
    cells.obs["known"] = labels.str[-1].astype(int) if as_numbers else labels
    SCANVI.setup_anndata(cells, "known", -1 if as_numbers else "unknown", batch_key="batch")
    model = without_training(SCANVI(cells, n_hidden=16))
    # Without training, nearly all cells would have one label.
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]])

    def classify(batch: Any, **_: Any) -> torch.Tensor:
        return probabilities[batch.counts.sum(dim=-1).long() % 3]

    monkeypatch.setattr(model.module, "classify", classify)
    monkeypatch.setattr(cell_pass, "encoder_rows", lambda module, rows: rows)
    found = read(model.predict(out=tmp_path / f"labels.{suffix}"))
    assert isinstance(found.obs["prediction"].dtype, pd.CategoricalDtype)
    assert [*found.obs["prediction"]] == [*model.predict()]
    assert len({*found.obs["prediction"]}) > 1
    soft = read(model.predict(soft=True, out=tmp_path / f"soft.{suffix}"))
    expected = model.predict(soft=True)
    same(soft.X, expected)
    assert [*soft.var_names] == [*map(str, expected.columns)]
    assert [*soft.obs_names] == [*cells.obs_names]
    with pytest.raises(InvalidOptionError, match="without ig_interpretability"):
        model.predict(ig_interpretability=True, out=tmp_path / f"x.{suffix}")


def test_accessibility_and_latents_of_a_modality(adata: anndata.AnnData, tmp_path: Path) -> None:
    regions = adata.copy()
    PEAKVI.setup_anndata(regions)
    model = without_training(PEAKVI(regions, n_hidden=8, n_latent=4))
    found = read(model.get_normalized_accessibility(out=tmp_path / "a.h5ad", batch_size=64))
    same(found.X, model.get_normalized_accessibility(batch_size=64))
    with pytest.raises(InvalidOptionError, match="out without threshold"):
        model.get_normalized_accessibility(out=tmp_path / "b.h5ad", threshold=0.5)
    regions.var["feature_types"] = ["Gene Expression"] * 20 + ["Peaks"] * 20
    MULTIVI.setup_anndata(regions)
    both = without_training(MULTIVI(regions, n_hidden=8, n_latent=4))
    for modality in ("joint", "expression"):
        path = both.get_latent_representation(modality=modality, out=tmp_path / f"{modality}.h5ad")
        expected = both.get_latent_representation(modality=modality)
        same(read(path).obsm["latent"], expected)


def test_a_file_that_exists_is_refused_before_any_cell_is_read(
    adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SCVI.setup_anndata(adata)
    model = without_training(SCVI(adata, n_hidden=16))
    monkeypatch.setattr(type(model.module), "encode", lambda *_: pytest.fail("cells were read"))
    (tmp_path / "x.h5ad").touch()
    for ask in (
        model.get_latent_representation,
        model.get_elbo,
        model.get_reconstruction_error,
        model.get_latent_library_size,
        model.get_normalized_expression,
    ):
        with pytest.raises(InvalidOptionError, match="does not exist yet"):
            ask(out=tmp_path / "x.h5ad")


def test_two_buffers_and_two_chunks_are_in_memory(
    adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    cells = open_cells(tmp_path / "cells.h5ad")
    SCVI.setup_anndata(cells)
    model = without_training(SCVI(cells, n_hidden=16))
    monkeypatch.setattr(read_ahead, "max_buffer_size", lambda *_, **__: 40)
    monkeypatch.setattr(streaming_writer, "CHUNK_BYTES", 320)
    in_memory: weakref.WeakSet[Any] = weakref.WeakSet()
    most, sizes, load = [], [], read_ahead.load_rows

    def counted(*args: Any) -> Any:
        rows = load(*args)
        in_memory.add(rows)
        most.append(len(in_memory))
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(read_ahead, "load_rows", counted)
    chunks: list[int] = []
    flush = streaming_writer.ArrayWriter.flush

    def measured(self: Any) -> None:
        chunks.append(self.waiting.nbytes)
        flush(self)

    monkeypatch.setattr(streaming_writer.ArrayWriter, "flush", measured)
    model.get_latent_representation(
        out=tmp_path / "x.h5ad", batch_size=10, indices=np.random.default_rng(0).permutation(300)
    )
    assert sizes == [40] * 7 + [20]
    assert max(most) <= 2
    assert len(chunks) >= 300 // 8
    assert max(chunks) <= 320


@pytest.mark.parametrize("when", ["write", "close"])
def test_a_full_disk_leaves_nothing_half_written(
    when: str, adata: anndata.AnnData, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SCVI.setup_anndata(adata)
    model = without_training(SCVI(adata, n_hidden=16))
    # Chunks of 8 cells are written while further ones are computed, or all at the end.
    monkeypatch.setattr(streaming_writer, "CHUNK_BYTES", 320 if when == "write" else 2**22)
    n_written = []
    flush = streaming_writer.ArrayWriter.flush

    def full(writer: Any) -> None:
        n_written.append(1)
        if len(n_written) == 3 or when == "close":
            raise OSError(28, "No space left on device")
        flush(writer)

    monkeypatch.setattr(streaming_writer.ArrayWriter, "flush", full)
    path = tmp_path / f"latent.{suffix}"
    with pytest.raises(OutputError, match=rf"latent.{suffix}'.*No space left.*disk full"):
        model.get_latent_representation(out=path)
    assert not any(tmp_path.iterdir())


FULL = """
import resource
import sys

import numpy as np
from anndata import AnnData

from cellvae.errors import OutputError
from cellvae.model import SCVI

adata = AnnData(np.ones((2_000, 500), dtype=np.float32))
SCVI.setup_anndata(adata)
model = SCVI(adata, n_hidden=4)
model.is_trained = True
limit = 2**20
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    model.get_normalized_expression(out=sys.argv[1])
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sizes of files are limited as Linux does")
def test_a_file_that_may_not_grow(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Expected to write '{path}'; got an error" in done.stdout, done
    assert not any(tmp_path.iterdir())

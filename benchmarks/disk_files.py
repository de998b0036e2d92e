"""Files of simulated cells for `disk.py`: sorted by sample, written in parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse
from simulated import simulated

N_SAMPLES, N_GENES, DENSITY = 20, 2_000, 0.10
POOL = 200_000
PART = 20_000


def load_pool(folder: Path) -> anndata.AnnData:
    """200,000 simulated cells of 20 samples, one sample after the other; made once and kept."""
    path = folder / "pool.h5ad"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        adata = simulated(POOL, N_GENES, DENSITY, n_batches=N_SAMPLES)
        adata.obs["sample"] = adata.obs.pop("batch").astype(str)
        adata = adata[np.argsort(adata.obs["sample"].to_numpy(), kind="stable")].copy()
        adata.obs_names = [f"c{number}" for number in range(adata.n_obs)]
        adata.write_h5ad(path)
    return anndata.read_h5ad(path)


def draw_cells(pool: anndata.AnnData, n_cells: int) -> np.ndarray:
    """Indices of `n_cells` cells, as many of each sample, one sample after the other.

    A sample of more cells than the pool has is the cells of the pool again, in another order.
    """
    random = np.random.default_rng(0)
    codes = pd.Categorical(pool.obs["sample"]).codes
    sizes = np.diff(np.linspace(0, n_cells, N_SAMPLES + 1).astype(np.int64))
    drawn = []
    for sample, size in enumerate(sizes):
        own = np.flatnonzero(codes == sample)
        times = -(-size // len(own))
        drawn.append(np.concatenate([random.permutation(own) for _ in range(times)])[:size])
    return np.concatenate(drawn)


def write_cells(path: Path, pool: anndata.AnnData, cells: np.ndarray, compression: str) -> None:
    """AnnData file of these cells of the pool, whose counts are written 20,000 cells at a time.

    `compression` is `none`, `gzip` or `lzf` for an h5ad; a zarr has the codec of AnnData.
    """
    partial = path.with_name(f"partial-{path.name}")
    root = open_root(partial)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    obs = pool.obs.iloc[cells].copy()
    obs.index = [f"c{number}" for number in range(len(cells))]
    write_elem(root, "obs", obs)
    write_elem(root, "var", pool.var)
    write_counts(root, pool.X, cells, None if compression == "none" else compression)
    if partial.suffix == ".h5ad":
        root.close()
    partial.rename(path)


def open_root(path: Path) -> Any:
    """Root group of a new file."""
    if path.suffix == ".h5ad":
        import h5py

        return h5py.File(path, "w")
    import zarr

    return zarr.open_group(path, mode="w", zarr_format=2)


def write_counts(root: Any, counts: sparse.csr_matrix, cells: np.ndarray, codec: Any) -> None:
    """CSR group `X` in pieces, with the sizes of chunks that AnnData chooses."""
    indptr = np.concatenate([[0], np.cumsum(np.diff(counts.indptr)[cells], dtype=np.int64)])
    group = root.create_group("X")
    group.attrs.update(
        {
            "encoding-type": "csr_matrix",
            "encoding-version": "0.1.0",
            "shape": [len(cells), counts.shape[1]],
        }
    )
    arrays = {}
    for name, values in (("data", counts.data), ("indices", counts.indices)):
        shape, dtype = (int(indptr[-1]),), values.dtype
        if hasattr(root, "create_array"):
            arrays[name] = group.create_array(name, shape=shape, dtype=dtype)
        else:
            kwargs = {"compression": codec, "maxshape": (None,)}
            arrays[name] = group.create_dataset(name, shape=shape, dtype=dtype, **kwargs)
    for first in range(0, len(cells), PART):
        part = counts[cells[first : first + PART]]
        where = slice(int(indptr[first]), int(indptr[first + part.shape[0]]))
        arrays["data"][where], arrays["indices"][where] = part.data, part.indices
    write_elem(group, "indptr", indptr)


def make_file(folder: Path, n_cells: int, form: str) -> Path:
    """File of so many cells in a form: h5ad-none, h5ad-gzip, h5ad-lzf or zarr; kept if there."""
    kind, _, compression = form.partition("-")
    path = folder / f"{n_cells}-{form}.{kind}"
    if not path.exists():
        pool = load_pool(folder)
        write_cells(path, pool, draw_cells(pool, n_cells), compression)
    return path


def forget_cached(path: Path) -> bool:
    """Take a file or a folder out of the page cache; False where the system cannot.

    `posix_fadvise(DONTNEED)` after `fsync`, which any user may call for own files, on Linux.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return True

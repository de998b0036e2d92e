"""Opens cells in files, one or several, h5ad or zarr, in place of an AnnData."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.core.log import logger
from cellvae.data.files.cell_files import CellFiles, FileGenes
from cellvae.data.files.file_tables import read_element
from cellvae.errors import DataMismatchError, InvalidDataError, InvalidOptionError, quote_names

Paths: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"


def open_cells(
    paths: Paths, *, join: Literal["inner", "outer"] = "inner", label: str | None = "file"
) -> CellFiles:
    """Open cells in files, in place of an AnnData: models train and answer without loading them.

    Tables of cells and genes are read, matrices are not. Genes are matched by name, and categories
    of a column are those of all files, as :func:`anndata.concat` does it.

    Parameters
    ----------
    paths
        File (`.h5ad`) or folder (`.zarr`), a pattern such as `"cells/*.h5ad"`, or several of
        these; the files of a pattern are in the order of their names.
    join
        Which genes and columns of `obs` there are if files differ: those of all files (`"inner"`)
        or of any (`"outer"`). A gene that a file does not have is zero in its cells.
    label
        Column of `obs` for the name of the file that a cell is from; None for none. One file has
        no such column.

    Returns
    -------
    CellFiles
        Cells for `setup_anndata`, for models and for their methods.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or nothing fits a pattern.
    InvalidDataError
        If a file cannot be read, or has a gene twice.
    DataMismatchError
        If the files have no gene in common, with `join="inner"`.
    InvalidOptionError
        If an argument is invalid.
    """
    if join not in ("inner", "outer"):
        raise InvalidOptionError(f"Expected join to be 'inner' or 'outer'; got {join!r}.")
    files = find_files(paths)
    tables = [read_tables(path) for path in files]
    if len(files) == 1:
        obs, var = tables[0]
        return CellFiles(FileGenes(paths=files, genes=(None,), n_genes=len(var)), obs, var)
    obs, var = join_tables(tables, file_names(files), join, label)
    if not len(var):
        raise DataMismatchError(
            f"Expected genes that all {len(files):,} files have; got none in common: "
            + "; ".join(
                f"'{path.name}' has {quote_names([*own.index], most=3)}"
                for path, (_, own) in zip(files[:3], tables[:3], strict=True)
            )
            + ". Are their names of the same type (symbols, Ensembl identifiers)?"
        )
    genes = tuple(gene_positions(own.index, var.index) for _, own in tables)
    return CellFiles(FileGenes(paths=files, genes=genes, n_genes=len(var)), obs, var)


def find_files(paths: Paths) -> tuple[Path, ...]:
    """Files that paths and patterns name.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or nothing fits a pattern.
    InvalidOptionError
        If there is no path, or a file is named twice.
    """
    single = isinstance(paths, (str, os.PathLike))
    given = [paths] if single else list(paths)  # type: ignore[arg-type]
    found: list[Path] = []
    for each in given:
        text = str(Path(each).expanduser())  # type: ignore[arg-type]
        is_pattern = glob.has_magic(text) and not Path(text).exists()
        # A pattern may be absolute, which Path.glob refuses.
        matching = sorted(glob.glob(text, recursive=True)) if is_pattern else [text]  # noqa: PTH207
        if not matching:
            raise FileNotFoundError(f"Expected files that fit '{text}'; there are none.")
        found.extend(map(Path, matching))
    missing = [path for path in found if not path.exists()]
    if missing:
        raise FileNotFoundError(f"Expected a file of cells in '{missing[0]}'; there is nothing.")
    if not found:
        raise InvalidOptionError("Expected at least one path; got none.")
    if len({path.resolve() for path in found}) < len(found):
        names = [str(path) for path in found]
        repeated = sorted({name for name in names if names.count(name) > 1}) or names
        raise InvalidOptionError(f"Expected each file once; got {quote_names(repeated)} again.")
    return tuple(found)


def read_tables(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the cells and of the genes of a file.

    Raises
    ------
    InvalidDataError
        If they cannot be read, or a gene occurs twice.
    """
    obs, var = read_element(path, "obs"), read_element(path, "var")
    for name, table in (("obs", obs), ("var", var)):
        if not isinstance(table, pd.DataFrame):
            raise InvalidDataError(
                f"Expected a table as AnnData writes it in {name} of '{path}'; got "
                f"{type(table).__name__}. Write the file again with a newer AnnData."
            )
        table.index = table.index.astype(str)
    if not var.index.is_unique:
        repeated = [*var.index[var.index.duplicated()].unique()]
        raise InvalidDataError(
            f"Expected different names for all genes of '{path}'; got {quote_names(repeated)} more "
            "than once. Make them unique with adata.var_names_make_unique() and write the file "
            "again."
        )
    return obs, var


def file_names(paths: Sequence[Path]) -> list[str]:
    """Short names of files that are all different: the stem, the name, or the whole path."""
    for names in ([path.stem for path in paths], [path.name for path in paths]):
        if len(set(names)) == len(paths):
            return names
    return [str(path) for path in paths]


def join_tables(
    tables: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    names: Sequence[str],
    join: Literal["inner", "outer"],
    label: str | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the cells and of the genes of several files."""
    import anndata

    if label is not None and any(label in obs.columns for obs, _ in tables):
        raise InvalidOptionError(
            f"Expected a label that no file has as a column of obs; got '{label}'. Give another "
            "one with label=..., or None."
        )
    parts = {
        name: anndata.AnnData(obs=obs, var=var)
        for name, (obs, var) in zip(names, tables, strict=True)
    }
    cell_names = pd.Index(np.concatenate([obs.index.to_numpy() for obs, _ in tables]))
    unique = cell_names.is_unique
    if not unique:
        logger.info(
            "Added the name of the file to the names of the cells, since files share some of them."
        )
    joined = anndata.concat(
        parts, join=join, label=label, merge="same", index_unique=None if unique else "-"
    )
    return joined.obs, joined.var


def gene_positions(own: pd.Index, joined: pd.Index) -> NDArray[np.int32] | None:
    """Index of the genes of a file among those of all, -1 if absent; None if they are the same."""
    if own.equals(joined):
        return None
    return joined.get_indexer(own).astype(np.int32)

"""Opens cells in files, one or several, h5ad or zarr, in place of an AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.core.log import logger
from cellvae.data.files.cell_files import CellFiles, FileGenes
from cellvae.data.files.file_tables import element_names, read_element
from cellvae.data.files.find_files import Paths, file_names, find_files, source_of
from cellvae.errors import DataMismatchError, InvalidDataError, InvalidOptionError, quote_names


def open_cells(
    paths: Paths,
    *,
    join: Literal["inner", "outer"] = "inner",
    label: str | None = "file",
    raw: bool = False,
    modality: str | None = None,
) -> CellFiles:
    """Open cells in files, in place of an AnnData: models train and answer without loading them.

    Tables of cells and genes are read, matrices are not. Genes are matched by name, and categories
    of a column are those of all files, as :func:`anndata.concat` does it.

    Parameters
    ----------
    paths
        File (`.h5ad`) or folder (`.zarr`), a pattern such as `"cells/*.h5ad"`, or several of
        these; the files of a pattern are in the order of their names. Also a collection that
        annbatch has written, by its folder or as a `DatasetCollection`: its parts are one source,
        and reading needs the package zarr only.
    join
        Which genes and columns of `obs` there are if files differ: those of all files (`"inner"`)
        or of any (`"outer"`). A gene that a file does not have is zero in its cells.
    label
        Column of `obs` for the name of the file that a cell is from; None for none. One file, or
        one collection, has no such column.
    raw
        Whether X and its genes are those of `raw` of the files, where the counts are if X is
        normalised. There are no layers then.
    modality
        Modality to open of files of a MuData (`.h5mu`); None for files of an AnnData.

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
        If an argument is invalid, or a file has modalities and none is named.
    UnknownKeyError
        If a file has no such modality.
    """
    if join not in ("inner", "outer"):
        raise InvalidOptionError(f"Expected join to be 'inner' or 'outer'; got {join!r}.")
    files = find_files(paths)
    tables = [read_tables(path, raw, modality) for path in files]
    if len(files) == 1:
        obs, var = tables[0]
        return CellFiles(FileGenes(files, (None,), len(var), raw, modality), obs, var)
    obs, var = join_tables(tables, files, join, label)
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
    return CellFiles(FileGenes(files, genes, len(var), raw, modality), obs, var)


def read_tables(path: Path, raw: bool, modality: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the cells and of the genes of a file, or of the genes of its `raw`.

    Raises
    ------
    InvalidDataError
        If they cannot be read, or a gene occurs twice.
    InvalidOptionError
        If the file has modalities and none is named.
    """
    names = element_names(path, "mod") if modality is None else []
    if names:
        raise InvalidOptionError(
            f"Expected the modality of '{path}' to open; it has {quote_names(names)}. Name it: "
            f"open_cells(..., modality='{names[0]}')."
        )
    obs = read_element(path, "obs", modality)
    var = read_element(path, "raw/var" if raw else "var", modality)
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


def join_tables(
    tables: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    paths: Sequence[Path],
    join: Literal["inner", "outer"],
    label: str | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the cells and of the genes of several files."""
    import anndata

    sources = [source_of(path) for path in paths]
    distinct = [*dict.fromkeys(sources)]
    names = dict(zip(distinct, file_names(distinct), strict=True))
    label = label if len(distinct) > 1 else None
    if label is not None and any(label in obs.columns for obs, _ in tables):
        raise InvalidOptionError(
            f"Expected a label that no file has as a column of obs; got '{label}'. Give another "
            "one with label=..., or None."
        )
    cell_names = pd.Index(np.concatenate([obs.index.to_numpy() for obs, _ in tables]))
    unique = cell_names.is_unique
    if not unique:
        logger.info(
            "Added the name of the file to the names of the cells, since files share some of them."
        )
    joined = anndata.concat(
        [anndata.AnnData(obs=obs, var=var) for obs, var in tables],
        join=join,
        keys=[
            names[source] if source == path else f"{names[source]}-{path.stem}"
            for source, path in zip(sources, paths, strict=True)
        ],
        merge="same",
        index_unique=None if unique else "-",
    )
    if label is not None:
        numbers = np.repeat(
            [distinct.index(source) for source in sources], [len(obs) for obs, _ in tables]
        )
        joined.obs[label] = pd.Categorical.from_codes(numbers, [*names.values()])
    return joined.obs, joined.var


def gene_positions(own: pd.Index, joined: pd.Index) -> NDArray[np.int32] | None:
    """Index of the genes of a file among those of all, -1 if absent; None if they are the same."""
    if own.equals(joined):
        return None
    return joined.get_indexer(own).astype(np.int32)

"""Adapter of mudata, which is imported only where there is a MuData."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData


def is_mudata(cells: object) -> bool:
    """Whether a value is a MuData; the package is not imported for that."""
    mudata = sys.modules.get("mudata")
    return mudata is not None and isinstance(cells, mudata.MuData)


def import_mudata() -> Any:
    """Package mudata.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import mudata
    except ImportError as error:
        raise ImportError(
            "Expected the package mudata, which cells of several modalities need; it is not "
            "installed. Install it with: pip install 'cellvae[mudata]'"
        ) from error
    return mudata


@contextlib.contextmanager
def keep_columns(mudata: Any) -> Iterator[None]:
    """Context in which mudata copies no column of a modality to the whole.

    That is what version 0.4 does; version 0.3 copies them, and warns that it will not. Its warning
    about names that a gene and a protein share was given when the MuData was made.
    """
    has_option = hasattr(mudata, "set_options")
    option = mudata.set_options(pull_on_update=False) if has_option else contextlib.nullcontext()
    with warnings.catch_warnings(), option:
        warnings.filterwarnings("ignore", message="var_names are not unique")
        yield


def make_mudata(tables: Mapping[str, AnnData], like: Any) -> Any:
    """MuData of other tables of the same cells; cells and all else are those of `like`.

    Parameters
    ----------
    tables
        AnnData of each modality.
    like
        MuData, whose `obs`, `obsm`, `obsp` and `uns` are copied shallowly. It is not changed.
    """
    mudata = import_mudata()
    with keep_columns(mudata):
        # The index alone keeps the order of the cells; MuData would convert types of columns.
        made = mudata.MuData(dict(tables), obs=like.obs[[]].copy(), axis=like.axis)
        for column in like.obs.columns:
            made.obs[column] = like.obs[column]
        for key in like.obsm:
            if key not in tables:
                made.obsm[key] = like.obsm[key]
        for key in like.obsp:
            made.obsp[key] = like.obsp[key]
        made.uns.update(like.uns)
    return made


def replace_modalities(mdata: Any, tables: Mapping[str, AnnData]) -> None:
    """Give a MuData other tables of the same cells, in place."""
    with keep_columns(import_mudata()):
        for name, table in tables.items():
            mdata.mod[name] = table
        mdata.update()

"""Minified AnnData: the latent posterior of each cell, with its counts or in place of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, final, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.contracts import MIN_LIBRARY_SIZE
from cellvae.data.files.h5ad import shallow_copy
from cellvae.data.mudata_adapter import is_mudata, make_mudata
from cellvae.data.setup.fields import Field
from cellvae.data.setup.registration import Registration
from cellvae.data.setup.tables.cells import check_is_cells
from cellvae.data.storage.column import DroppedCounts
from cellvae.data.storage.count_matrix import layer_names
from cellvae.data.storage.memory import ColumnRows, ContinuousColumn
from cellvae.errors import DataMismatchError, InvalidDataError, quote_names

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.contracts import B
    from cellvae.data.storage.column import Column

MinifiedType: TypeAlias = Literal[
    "latent_posterior_parameters", "latent_posterior_parameters_with_counts"
]
"""Whether a minified AnnData has the latent posterior only, or the counts too."""

MINIFIED_KEY = "cellvae_minified"
"""Entry of `adata.uns` with the record of a minified AnnData."""

SCVI_UNS_KEY = "_scvi_adata_minify_type"
"""Entry of `adata.uns` with the type of a minified AnnData in scvi-tools.

It is also written here, for notebooks that read it.
"""
SCVI_TYPE_PREFIXES = ("scvi_", "_scvi_")
"""Prefixes of the entries of `adata.obsm` with mean and variance in scvi-tools."""
SCVI_LIBRARY_SIZE_KEY = "_scvi_observed_lib_size"
"""Column of `adata.obs` with the sum of the counts in older versions of scvi-tools."""

LIBRARY_SIZE_KEY = "observed_lib_size"
"""Column of `adata.obs` with the sum of the counts of each cell."""

LOG_LIBRARY_MEAN_KEY, LOG_LIBRARY_VARIANCE_KEY = "latent_lib_size_qlm", "latent_lib_size_qlv"
"""Columns of `adata.obs` with the posterior of the log library size, if it is latent."""

SIZE_KEYS = {"log_library": "latent_log_library", "log_depth": "latent_log_depth"}
"""Columns of `adata.obs` with sizes that an encoder computes, by their names in a batch."""


@final
@dataclass(frozen=True, kw_only=True)
class MinifiedRecord:
    """How an AnnData was minified.

    Parameters
    ----------
    data_type
        Whether the counts were dropped.
    qzm_key, qzv_key
        Entries of `adata.obsm` with the mean and the variance of the latent posterior.
    weights
        Digest of the weights of the model that computed the latent posterior; empty if scvi-tools
        minified the AnnData, which does not store the model.
    """

    data_type: MinifiedType
    qzm_key: str
    qzv_key: str
    weights: str

    @property
    def has_counts(self) -> bool:
        """Whether the AnnData still has the counts."""
        return self.data_type == "latent_posterior_parameters_with_counts"


class StoredPosterior(NamedTuple):
    """Posterior of each cell, as a minified AnnData stores it."""

    mean: NDArray[np.float32]
    """Of the latent representation, [cells, latent]."""
    variance: NDArray[np.float32]
    """Of the latent representation, [cells, latent]."""
    library_size: NDArray[np.float32]
    """Sum of the counts, [cells]."""
    log_library_mean: NDArray[np.float32] | None = None
    """Of the log library size, if it is latent, [cells]."""
    log_library_variance: NDArray[np.float32] | None = None
    """Of the log library size, if it is latent, [cells]."""
    sizes: Mapping[str, NDArray[np.float32]] = MappingProxyType({})
    """Sizes that an encoder computes, [cells] each, by their names in a batch."""


def minified_record(adata: AnnData) -> MinifiedRecord | None:
    """Record of a minified AnnData; None if it is not minified.

    Raises
    ------
    InvalidDataError
        If the entry in `adata.uns` is not one that this version writes.
    """
    check_is_cells(adata)
    stored = adata.uns.get(MINIFIED_KEY)
    if stored is None:
        scvi_type = adata.uns.get(SCVI_UNS_KEY)
        if scvi_type is None:
            return None
        is_old = f"{SCVI_TYPE_PREFIXES[1]}latent_qzm" in adata.obsm
        keys = {
            f"{name}_key": f"{SCVI_TYPE_PREFIXES[is_old]}latent_{name}" for name in ("qzm", "qzv")
        }
        stored = {"data_type": scvi_type, "weights": "", **keys}
    names = [field.name for field in fields(MinifiedRecord)]
    if not isinstance(stored, Mapping) or set(stored) != set(names):
        raise InvalidDataError(
            f"Expected {quote_names(names)} in adata.uns['{MINIFIED_KEY}']; got {stored!r}. Remove "
            "it, and minify again from the AnnData with counts."
        )
    values = {name: str(stored[name]) for name in names}
    if values["data_type"] not in get_args(MinifiedType):
        raise InvalidDataError(
            f"Expected adata.uns['{MINIFIED_KEY}']['data_type'] to be one of "
            f"{quote_names(get_args(MinifiedType))}; got '{values['data_type']}'."
        )
    data_type = cast("MinifiedType", values.pop("data_type"))
    return MinifiedRecord(data_type=data_type, **values)


def make_minified(adata: AnnData, record: MinifiedRecord, posterior: StoredPosterior) -> AnnData:
    """Minified copy of an AnnData, with the posterior of each cell; `adata` is not changed.

    `obs`, `var`, `obsm`, `varm`, `obsp`, `varp` and `uns` are copied. Without counts, `X` and the
    layers are sparse matrices without entries, as in scvi-tools, and there is no `raw`; that holds
    for every modality of a MuData.
    """
    copy = copy_with_counts if record.has_counts else copy_without_counts
    if is_mudata(adata):
        modalities: Any = adata
        tables = {name: copy(table) for name, table in modalities.mod.items()}
        minified: AnnData = make_mudata(tables, modalities)
    else:
        minified = copy(adata)
    minified.obsm[record.qzm_key] = posterior.mean
    minified.obsm[record.qzv_key] = posterior.variance
    minified.obs[LIBRARY_SIZE_KEY] = posterior.library_size
    if posterior.log_library_mean is not None:
        minified.obs[LOG_LIBRARY_MEAN_KEY] = posterior.log_library_mean
        minified.obs[LOG_LIBRARY_VARIANCE_KEY] = posterior.log_library_variance
    for name, sizes in posterior.sizes.items():
        minified.obs[SIZE_KEYS[name]] = sizes
    minified.uns[MINIFIED_KEY] = asdict(record)
    minified.uns[SCVI_UNS_KEY] = record.data_type
    return minified


def copy_with_counts(adata: AnnData) -> AnnData:
    """Copy of an AnnData in memory, with the same arrays."""
    return shallow_copy(adata.to_memory() if adata.isbacked else adata)


def copy_without_counts(adata: AnnData) -> AnnData:
    """Copy of an AnnData whose `X` and layers are sparse matrices without entries."""
    from anndata import AnnData

    return AnnData(
        X=empty_csr(adata.shape),
        layers={name: empty_csr(adata.shape) for name in layer_names(adata)},
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
    )


def empty_csr(shape: tuple[int, int]) -> sparse.csr_matrix:
    """CSR matrix without entries."""
    return sparse.csr_matrix(shape, dtype=np.float32)


def drop_count_fields(fields: Sequence[Field], record: MinifiedRecord | None) -> tuple[Field, ...]:
    """Fields that a minified AnnData has: all but those of counts, if these were dropped."""
    dropped = record is not None and not record.has_counts
    return tuple(field for field in fields if not (dropped and field.axis is not None))


def read_minified(
    registration: Registration[Any],
    adata: AnnData,
    record: MinifiedRecord,
    fields: Sequence[Field],
    batch_type: Callable[..., B],
    *,
    check_counts: bool = True,
) -> ColumnRows[B]:
    """Rows of a minified AnnData, with the posterior of each cell.

    Raises
    ------
    DataMismatchError
        If the posterior is missing, or as :meth:`Registration.read`.
    """
    present = drop_count_fields(fields, record)
    rows = registration.read(adata, present, batch_type, check_counts=check_counts)
    dropped: dict[str, Column] = {
        field.name: DroppedCounts(int(adata.n_obs)) for field in fields if field not in present
    }
    batch_fields: tuple[str, ...] = getattr(batch_type, "_fields", ())
    by_axis = {"genes": "log_library", "regions": "log_depth"}
    sizes = [by_axis[axis] for axis in registration.axes if by_axis.get(axis) in batch_fields]
    posterior = posterior_columns(adata, record, sizes)
    return ColumnRows(dropped | rows.columns | posterior, batch_type)


def posterior_columns(
    adata: AnnData, record: MinifiedRecord, sizes: Sequence[str] = ()
) -> dict[str, Column]:
    """Columns of the posterior by their names in a batch.

    Parameters
    ----------
    adata
        Minified cells.
    record
        How they were minified.
    sizes
        Sizes that an encoder computes, by their names in a batch; without them, the library size
        is read.

    Raises
    ------
    DataMismatchError
        If one is missing; the message names it.
    """
    keys = {"latent_mean": record.qzm_key, "latent_variance": record.qzv_key}
    missing = [f"obsm['{key}']" for key in keys.values() if key not in adata.obsm]
    size_key = (
        SCVI_LIBRARY_SIZE_KEY
        if SCVI_LIBRARY_SIZE_KEY in adata.obs and LIBRARY_SIZE_KEY not in adata.obs
        else LIBRARY_SIZE_KEY
    )
    columns = {"library_mean": size_key}
    if sizes:
        columns = {name: SIZE_KEYS[name] for name in sizes}
    elif LOG_LIBRARY_MEAN_KEY in adata.obs:
        columns = {
            "library_mean": LOG_LIBRARY_MEAN_KEY,
            "library_variance": LOG_LIBRARY_VARIANCE_KEY,
        }
    missing += [f"obs['{key}']" for key in columns.values() if key not in adata.obs]
    if missing:
        raise DataMismatchError(
            f"Expected a minified AnnData with {quote_names(missing)}; they are missing. Restore "
            "them, or minify the AnnData with counts again."
        )
    values = {name: np.asarray(adata.obsm[key], dtype=np.float32) for name, key in keys.items()}
    for name, key in columns.items():
        column = adata.obs[key].to_numpy(dtype=np.float32)[:, None]
        values[name] = np.log(np.maximum(column, MIN_LIBRARY_SIZE)) if key == size_key else column
    return {name: ContinuousColumn(array) for name, array in values.items()}

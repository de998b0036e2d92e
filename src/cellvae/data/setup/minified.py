"""AnnData that holds the latent posterior of each cell, with its counts or in place of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, final, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.contracts import MIN_LIBRARY_SIZE
from cellvae.data.files.h5ad import shallow_copy
from cellvae.data.setup.fields import Counts, Field
from cellvae.data.setup.keys import check_is_anndata
from cellvae.data.setup.registration import Registration
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
"""What is kept: the latent alone, or the counts too."""

UNS_KEY = "cellvae_minified"
"""Entry of `adata.uns` that says that an AnnData is minified, and by what."""

SCVI_UNS_KEY = "_scvi_adata_minify_type"
"""Entry of `adata.uns` in which scvi-tools says that an AnnData is minified, and how.

It is written here too, for notebooks that read it.
"""
SCVI_TYPE_PREFIXES = ("scvi_", "_scvi_")
"""Beginnings of the entries of `adata.obsm` in which scvi-tools keeps mean and variance."""
SCVI_LIBRARY_SIZE_KEY = "_scvi_observed_lib_size"
"""Column of `adata.obs` with the sum of the counts in older versions of scvi-tools."""

LIBRARY_SIZE_KEY = "observed_lib_size"
"""Column of `adata.obs` with the sum of the counts of each cell."""

LOG_LIBRARY_MEAN_KEY, LOG_LIBRARY_VARIANCE_KEY = "latent_lib_size_qlm", "latent_lib_size_qlv"
"""Columns of `adata.obs` with the posterior of the logarithm of the size, where it is latent."""


@final
@dataclass(frozen=True, kw_only=True)
class MinifiedRecord:
    """How an AnnData was minified.

    Parameters
    ----------
    data_type
        What was kept.
    qzm_key, qzv_key
        Entries of `adata.obsm` with the mean and the variance of the latent posterior.
    weights
        Digest of the weights of the model, which alone knows what the latent means; empty where
        scvi-tools minified the AnnData, which does not say by which model.
    """

    data_type: MinifiedType
    qzm_key: str
    qzv_key: str
    weights: str

    @property
    def has_counts(self) -> bool:
        """Whether the counts were kept."""
        return self.data_type == "latent_posterior_parameters_with_counts"


class StoredPosterior(NamedTuple):
    """Posteriors of cells, as they are stored."""

    mean: NDArray[np.float32]
    """Of the latent, [cells, latent]."""
    variance: NDArray[np.float32]
    """Of the latent, [cells, latent]."""
    library_size: NDArray[np.float32]
    """Sum of the counts, [cells]."""
    log_library_mean: NDArray[np.float32] | None = None
    """Of the logarithm of a latent size, [cells]."""
    log_library_variance: NDArray[np.float32] | None = None
    """Of the logarithm of a latent size, [cells]."""


def minified_record(adata: AnnData) -> MinifiedRecord | None:
    """How an AnnData was minified; None if it was not.

    Raises
    ------
    InvalidDataError
        If the entry in `adata.uns` is not what this version writes.
    """
    check_is_anndata(adata)
    stored = adata.uns.get(UNS_KEY)
    if stored is None:
        peer = adata.uns.get(SCVI_UNS_KEY)
        if peer is None:
            return None
        old = f"{SCVI_TYPE_PREFIXES[1]}latent_qzm" in adata.obsm
        keys = {f"{name}_key": f"{SCVI_TYPE_PREFIXES[old]}latent_{name}" for name in ("qzm", "qzv")}
        stored = {"data_type": peer, "weights": "", **keys}
    wanted = [field.name for field in fields(MinifiedRecord)]
    if not isinstance(stored, Mapping) or set(stored) != set(wanted):
        raise InvalidDataError(
            f"Expected {quote_names(wanted)} in adata.uns['{UNS_KEY}']; got {stored!r}. Remove "
            "it, and "
            "minify again from the AnnData with counts."
        )
    words = {name: str(stored[name]) for name in wanted}
    if words["data_type"] not in get_args(MinifiedType):
        raise InvalidDataError(
            f"Expected adata.uns['{UNS_KEY}']['data_type'] to be one of "
            f"{quote_names(get_args(MinifiedType))}; got '{words['data_type']}'."
        )
    kind = cast("MinifiedType", words.pop("data_type"))
    return MinifiedRecord(data_type=kind, **words)


def make_minified(adata: AnnData, record: MinifiedRecord, posterior: StoredPosterior) -> AnnData:
    """AnnData with the posterior of each cell; the one given stays as it is.

    Tables and what lies in `obsm`, `varm`, `obsp`, `varp` and `uns` come along. Without counts, `X`
    and layers are sparse matrices without entries, as in scvi-tools, and there is no `raw`.
    """
    from anndata import AnnData

    if record.has_counts:
        small = shallow_copy(adata.to_memory() if adata.isbacked else adata)
    else:
        small = AnnData(
            X=without_entries(adata.shape),
            layers={name: without_entries(adata.shape) for name in layer_names(adata)},
            obs=adata.obs.copy(),
            var=adata.var.copy(),
            uns=dict(adata.uns),
            obsm=dict(adata.obsm),
            varm=dict(adata.varm),
            obsp=dict(adata.obsp),
            varp=dict(adata.varp),
        )
    small.obsm[record.qzm_key] = posterior.mean
    small.obsm[record.qzv_key] = posterior.variance
    small.obs[LIBRARY_SIZE_KEY] = posterior.library_size
    if posterior.log_library_mean is not None:
        small.obs[LOG_LIBRARY_MEAN_KEY] = posterior.log_library_mean
        small.obs[LOG_LIBRARY_VARIANCE_KEY] = posterior.log_library_variance
    small.uns[UNS_KEY] = asdict(record)
    small.uns[SCVI_UNS_KEY] = record.data_type
    return small


def without_entries(shape: tuple[int, int]) -> sparse.csr_matrix:
    """Sparse matrix of zeros."""
    return sparse.csr_matrix(shape, dtype=np.float32)


def drop_count_fields(fields: Sequence[Field], record: MinifiedRecord | None) -> tuple[Field, ...]:
    """Fields that an AnnData has: those of counts only where they were kept."""
    dropped = record is not None and not record.has_counts
    return tuple(field for field in fields if not (dropped and isinstance(field, Counts)))


def read_minified(
    registration: Registration[Any],
    adata: AnnData,
    record: MinifiedRecord,
    fields: Sequence[Field],
    batch_type: Callable[..., B],
    *,
    check_counts: bool = True,
) -> ColumnRows[B]:
    """Rows of a minified AnnData, each cell with its posterior.

    Raises
    ------
    DataMismatchError
        If the posterior is not there, or as `Registration.read` does.
    """
    present = drop_count_fields(fields, record)
    rows = registration.read(adata, present, batch_type, check_counts=check_counts)
    absent: dict[str, Column] = {
        field.name: DroppedCounts(int(adata.n_obs)) for field in fields if field not in present
    }
    return ColumnRows(absent | rows.columns | posterior_columns(adata, record), batch_type)


def posterior_columns(adata: AnnData, record: MinifiedRecord) -> dict[str, Column]:
    """Columns of the posterior by their names in a batch.

    Raises
    ------
    DataMismatchError
        If one is missing, naming it.
    """
    keys = {"latent_mean": record.qzm_key, "latent_variance": record.qzv_key}
    missing = [f"obsm['{key}']" for key in keys.values() if key not in adata.obsm]
    size = (
        SCVI_LIBRARY_SIZE_KEY
        if SCVI_LIBRARY_SIZE_KEY in adata.obs and LIBRARY_SIZE_KEY not in adata.obs
        else LIBRARY_SIZE_KEY
    )
    columns = (
        [LOG_LIBRARY_MEAN_KEY, LOG_LIBRARY_VARIANCE_KEY]
        if LOG_LIBRARY_MEAN_KEY in adata.obs
        else [size]
    )
    missing += [f"obs['{key}']" for key in columns if key not in adata.obs]
    if missing:
        raise DataMismatchError(
            f"Expected a minified AnnData with {quote_names(missing)}; not there. Put it back, "
            "or minify "
            "the AnnData with counts again."
        )
    found: dict[str, Column] = {
        name: ContinuousColumn(np.asarray(adata.obsm[key], dtype=np.float32))
        for name, key in keys.items()
    }
    values = [adata.obs[key].to_numpy(dtype=np.float32)[:, None] for key in columns]
    if len(values) == 1:
        found["library_mean"] = ContinuousColumn(np.log(np.maximum(values[0], MIN_LIBRARY_SIZE)))
    else:
        found["library_mean"], found["library_variance"] = map(ContinuousColumn, values)
    return found

"""AnnData that holds the latent posterior of each cell, with its counts or in place of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, final, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.fields import Counts, Field
from cellvae.data.h5ad import same_arrays
from cellvae.data.keys import check_is_anndata
from cellvae.data.matrices import layer_names
from cellvae.data.registration import Registration
from cellvae.data.rows.absent import AbsentCounts
from cellvae.data.rows.memory import ColumnRows, NumberColumn
from cellvae.errors import DataMismatchError, InvalidDataError, named

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.contracts import B
    from cellvae.data.rows.column import Column

MinifiedType: TypeAlias = Literal[
    "latent_posterior_parameters", "latent_posterior_parameters_with_counts"
]
"""What is kept: the latent alone, or the counts too."""

PLACE = "cellvae_minified"
"""Entry of `adata.uns` that says that an AnnData is minified, and by what."""

PEER_PLACE = "_scvi_adata_minify_type"
"""Entry of `adata.uns` in which scvi-tools says that an AnnData is minified, and how.

It is written here too, for notebooks that read it.
"""
PEER_PREFIXES = ("scvi_", "_scvi_")
"""Beginnings of the entries of `adata.obsm` in which scvi-tools keeps mean and variance."""
PEER_SIZE = "_scvi_observed_lib_size"
"""Column of `adata.obs` with the sum of the counts in older versions of scvi-tools."""

SIZE = "observed_lib_size"
"""Column of `adata.obs` with the sum of the counts of each cell."""

SIZE_MEAN, SIZE_VARIANCE = "latent_lib_size_qlm", "latent_lib_size_qlv"
"""Columns of `adata.obs` with the posterior of the logarithm of the size, where it is latent."""


LEAST_SIZE = 1e-8
"""Least size of a cell without counts, so that its logarithm is finite."""


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
    size: NDArray[np.float32]
    """Sum of the counts, [cells]."""
    size_mean: NDArray[np.float32] | None = None
    """Of the logarithm of a latent size, [cells]."""
    size_variance: NDArray[np.float32] | None = None
    """Of the logarithm of a latent size, [cells]."""


def minified_record(adata: AnnData) -> MinifiedRecord | None:
    """How an AnnData was minified; None if it was not.

    Raises
    ------
    InvalidDataError
        If the entry in `adata.uns` is not what this version writes.
    """
    check_is_anndata(adata)
    stored = adata.uns.get(PLACE)
    if stored is None:
        peer = adata.uns.get(PEER_PLACE)
        if peer is None:
            return None
        old = f"{PEER_PREFIXES[1]}latent_qzm" in adata.obsm
        keys = {f"{name}_key": f"{PEER_PREFIXES[old]}latent_{name}" for name in ("qzm", "qzv")}
        stored = {"data_type": peer, "weights": "", **keys}
    wanted = [field.name for field in fields(MinifiedRecord)]
    if not isinstance(stored, Mapping) or set(stored) != set(wanted):
        raise InvalidDataError(
            f"Expected {named(wanted)} in adata.uns['{PLACE}']; got {stored!r}. Remove it, and "
            "minify again from the AnnData with counts."
        )
    words = {name: str(stored[name]) for name in wanted}
    if words["data_type"] not in get_args(MinifiedType):
        raise InvalidDataError(
            f"Expected adata.uns['{PLACE}']['data_type'] to be one of "
            f"{named(get_args(MinifiedType))}; got '{words['data_type']}'."
        )
    kind = cast("MinifiedType", words.pop("data_type"))
    return MinifiedRecord(data_type=kind, **words)


def minified(adata: AnnData, record: MinifiedRecord, posterior: StoredPosterior) -> AnnData:
    """AnnData with the posterior of each cell; the one given stays as it is.

    Tables and what lies in `obsm`, `varm`, `obsp`, `varp` and `uns` come along. Without counts, `X`
    and layers are sparse matrices without entries, as in scvi-tools, and there is no `raw`.
    """
    from anndata import AnnData

    if record.has_counts:
        small = same_arrays(adata.to_memory() if adata.isbacked else adata)
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
    small.obs[SIZE] = posterior.size
    if posterior.size_mean is not None:
        small.obs[SIZE_MEAN] = posterior.size_mean
        small.obs[SIZE_VARIANCE] = posterior.size_variance
    small.uns[PLACE] = asdict(record)
    small.uns[PEER_PLACE] = record.data_type
    return small


def without_entries(shape: tuple[int, int]) -> sparse.csr_matrix:
    """Sparse matrix of zeros."""
    return sparse.csr_matrix(shape, dtype=np.float32)


def without_counts(fields: Sequence[Field], record: MinifiedRecord | None) -> tuple[Field, ...]:
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
    present = without_counts(fields, record)
    rows = registration.read(adata, present, batch_type, check_counts=check_counts)
    absent: dict[str, Column] = {
        field.name: AbsentCounts(int(adata.n_obs)) for field in fields if field not in present
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
    size = PEER_SIZE if PEER_SIZE in adata.obs and SIZE not in adata.obs else SIZE
    columns = [SIZE_MEAN, SIZE_VARIANCE] if SIZE_MEAN in adata.obs else [size]
    missing += [f"obs['{key}']" for key in columns if key not in adata.obs]
    if missing:
        raise DataMismatchError(
            f"Expected a minified AnnData with {named(missing)}; not there. Put it back, or minify "
            "the AnnData with counts again."
        )
    found: dict[str, Column] = {
        name: NumberColumn(np.asarray(adata.obsm[key], dtype=np.float32))
        for name, key in keys.items()
    }
    values = [adata.obs[key].to_numpy(dtype=np.float32)[:, None] for key in columns]
    if len(values) == 1:
        found["library_mean"] = NumberColumn(np.log(np.maximum(values[0], LEAST_SIZE)))
    else:
        found["library_mean"], found["library_variance"] = map(NumberColumn, values)
    return found

"""Simulated doublets: sums of the counts of two cells of one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cellvae.contracts import B, Rows
from cellvae.core.csr_batch import CSRBatch
from cellvae.data.setup.fields import make_count_column
from cellvae.data.storage.count_matrix import count_matrix
from cellvae.errors import InvalidDataError, InvalidOptionError

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.core.shapes import CellNumbers
    from cellvae.data.setup.keys import CountKeys

CELLS_PER_CHUNK = 4096
"""Doublets whose counts are dense in memory at a time."""

STORED_POSTERIOR = ("latent_mean", "latent_variance", "library_mean", "library_variance")
"""Fields of a batch of cells whose posterior is not computed by the encoder."""

Parents = NDArray[np.int64]
"""Indices of the two cells of each doublet, [doublets, 2]."""


class DoubletNames(NamedTuple):
    """Columns of `obs` of cells and simulated doublets together."""

    simulated: str = "_solo_doub_sim"
    """`"singlet"` for a cell, `"doublet"` for a simulated doublet."""
    batch: str = "_solo_batch"
    """Batch in which doublets were simulated."""
    first: str = "_solo_parent_1"
    """Index of the first cell of a simulated doublet among all cells here; -1 for a cell."""
    second: str = "_solo_parent_2"
    """Index of its second cell."""


DOUBLET_NAMES = DoubletNames()
SINGLET, DOUBLET = "singlet", "doublet"
COMPONENTS_KEY = "X_pca"
"""Key in `obsm` of the principal components of cells and simulated doublets."""


def draw_parents(
    batch: NDArray[Any], cells: NDArray[np.int64], doublet_ratio: float, seed: int
) -> Parents:
    """Pairs of different cells of one batch, the batches one after the other, [doublets, 2].

    In each batch the pairs are drawn as scvi-tools draws them for `restrict_to_batch`, with the
    same random numbers; a cell that was drawn together with itself gets the next cell as partner.

    Parameters
    ----------
    batch
        Batch of each cell, [all cells].
    cells
        Indices of the cells that may be drawn.
    doublet_ratio
        Doublets per cell.
    seed
        Seed of the random numbers of each batch.

    Raises
    ------
    InvalidOptionError
        If the ratio is not above 0.
    InvalidDataError
        If no batch has two cells.
    """
    is_number = isinstance(doublet_ratio, int | float | np.number)
    if not (is_number and 0 < doublet_ratio < np.inf):
        raise InvalidOptionError(
            f"Expected doublet_ratio to be a number above 0; got {doublet_ratio!r}."
        )
    codes, _ = pd.factorize(batch[cells], sort=True)
    drawn = []
    for code in np.unique(codes):
        members = cells[codes == code]
        if len(members) < 2:
            continue
        n_doublets = max(1, round(doublet_ratio * len(members)))
        pairs = np.random.RandomState(seed).choice(len(members), size=(n_doublets, 2))
        same = pairs[:, 0] == pairs[:, 1]
        pairs[same, 1] = (pairs[same, 1] + 1) % len(members)
        drawn.append(members[pairs])
    if not drawn:
        raise InvalidDataError(
            "Expected a batch with at least two cells, from which a doublet can be simulated; "
            f"got {len(cells):,} cells in {len(np.unique(codes)):,} batches."
        )
    return np.concatenate(drawn).astype(np.int64)


@final
class DoubletRows(Generic[B]):
    """Rows of doublets, which are added up from the rows of their cells when they are read.

    Counts and size factors are those of both cells together, continuous covariates their mean;
    categories are those of the first cell.

    Parameters
    ----------
    rows
        Cells.
    parents
        Indices of the two cells of each doublet, [doublets, 2].
    """

    def __init__(self, rows: Rows[B], parents: Parents) -> None:
        self.rows = rows
        self.parents = torch.from_numpy(parents)

    def __len__(self) -> int:
        """Count the doublets."""
        return len(self.parents)

    def take(self, cells: CellNumbers) -> B:
        """Batch of the doublets with these indices."""
        first, second = self.parents[cells.cpu()].unbind(dim=1)
        one: Any = self.rows.take(first)
        other: Any = self.rows.take(second)
        # A minified AnnData has stored posteriors of its cells, but none of doublets.
        changed: dict[str, Any] = dict.fromkeys(STORED_POSTERIOR)
        changed["counts"] = to_dense(one.counts) + to_dense(other.counts)
        if one.size_factor is not None:
            changed["size_factor"] = one.size_factor + other.size_factor
        if one.continuous is not None:
            changed["continuous"] = (one.continuous + other.continuous) / 2
        doublets: B = one._replace(**changed)
        return doublets


def to_dense(counts: Any) -> torch.Tensor:
    """Counts as a dense tensor, [cells, genes]."""
    dense: torch.Tensor = counts.to_dense() if isinstance(counts, CSRBatch) else counts
    return dense


def make_doublets(adata: AnnData, keys: CountKeys, parents: Parents) -> AnnData:
    """AnnData of doublets: counts of both cells, and the columns of `obs` that keys name.

    Parameters
    ----------
    adata
        Cells.
    keys
        Keys by which the cells were set up.
    parents
        Indices of the two cells of each doublet, [doublets, 2].
    """
    from anndata import AnnData
    from scipy import sparse

    matrix = count_matrix(adata, keys.layer)
    column = make_count_column(matrix, matrix.genes if matrix.on_disk else None)
    is_sparse = not isinstance(matrix.values, np.ndarray)
    chunks = []
    for pairs in np.array_split(parents, -(-len(parents) // CELLS_PER_CHUNK)):
        first, second = (column.take(torch.from_numpy(half.copy())) for half in pairs.T)
        counts = (to_dense(first) + to_dense(second)).numpy()
        chunks.append(sparse.csr_matrix(counts) if is_sparse else counts)
    counts = sparse.vstack(chunks, format="csr") if is_sparse else np.concatenate(chunks)
    doublets = AnnData(counts, obs=obs_of_doublets(adata, keys, parents))
    doublets.var_names = adata.var_names
    if keys.layer is not None:
        doublets.layers[keys.layer] = counts
    return doublets


def obs_of_doublets(adata: AnnData, keys: CountKeys, parents: Parents) -> pd.DataFrame:
    """Columns of `obs` of doublets, as :class:`DoubletRows` combines them."""
    first, second = parents.T
    one_key = (keys.batch_key, keys.labels_key)
    names = [key for key in (*one_key, *keys.categorical_covariate_keys) if key is not None]
    columns = {name: adata.obs[name].iloc[first].array for name in names}
    for key in keys.continuous_covariate_keys:
        values = adata.obs[key].to_numpy(dtype=np.float64)
        columns[key] = (values[first] + values[second]) / 2
    if keys.size_factor_key is not None:
        values = adata.obs[keys.size_factor_key].to_numpy(dtype=np.float64)
        columns[keys.size_factor_key] = values[first] + values[second]
    names_of_doublets = [f"sim_doublet_{i}" for i in range(len(parents))]
    return pd.DataFrame(columns, index=pd.Index(names_of_doublets, dtype=object))


def join_features(
    cells: NDArray[np.float32],
    doublets: NDArray[np.float32],
    names: pd.Index,
    batch: pd.Series,
    parents: Parents,
    components: NDArray[np.float32],
) -> AnnData:
    """AnnData of the features of cells and of simulated doublets, for a classifier of both.

    Parameters
    ----------
    cells, doublets
        Features, [cells, features] and [doublets, features].
    names
        Names of the cells.
    batch
        Batch of each cell.
    parents
        Positions of the two cells of each doublet among the cells, [doublets, 2].
    components
        Principal components of cells and doublets, for `obsm`, [cells and doublets, components].
    """
    from anndata import AnnData

    columns = DOUBLET_NAMES
    labels = np.repeat([SINGLET, DOUBLET], [len(cells), len(doublets)])
    none = np.full(len(cells), -1, dtype=np.int64)
    all_names = [*map(str, names), *(f"sim_doublet_{i}" for i in range(len(doublets)))]
    obs = pd.DataFrame(
        {
            columns.simulated: pd.Categorical(labels, categories=[DOUBLET, SINGLET]),
            columns.batch: batch.iloc[np.r_[np.arange(len(cells)), parents[:, 0]]].array,
            columns.first: np.concatenate([none, parents[:, 0]]),
            columns.second: np.concatenate([none, parents[:, 1]]),
        },
        index=pd.Index(all_names, dtype=object),
    )
    features = AnnData(np.concatenate([cells, doublets]), obs=obs)
    features.var_names = [str(i) for i in range(cells.shape[1])]
    features.obsm[COMPONENTS_KEY] = components
    return features

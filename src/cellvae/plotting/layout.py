"""UMAP of a latent representation: coordinates and figure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellvae.errors import InvalidOptionError, UnknownKeyError, did_you_mean
from cellvae.plotting.embedding import embedding
from cellvae.plotting.sampling import stratified_sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CELLS = 10_000
"""Default maximum number of cells that are shown."""
N_NEIGHBORS = 15
MIN_DIST = 0.5
"""Parameters of UMAP, the defaults of scanpy."""
MANY_CELLS, FEW_EPOCHS = 5_000, 200
"""Above this number of cells the layout takes 200 epochs, as in umap-learn above 10,000."""
MIN_CELLS = 5


@dataclass(frozen=True)
class UMAPResult:
    """UMAP coordinates of all or some of the cells."""

    coordinates: NDArray[np.float32]
    """Coordinates of the shown cells, [shown, 2]."""
    cells: NDArray[np.int64]
    """Indices of these cells among all, ascending, [shown]."""
    n_cells: int
    """Number of all cells."""

    @property
    def is_sample(self) -> bool:
        """Whether some cells are not shown."""
        return len(self.cells) < self.n_cells

    def describe_cells(self) -> str:
        """Number of shown cells, such as `"10,000 of 100,000 cells"`."""
        of_all = f" of {self.n_cells:,}" if self.is_sample else ""
        return f"{len(self.cells):,}{of_all} cells"

    def title(self, name: str = "") -> str:
        """Title of a panel: its name, and the number of shown cells unless all are shown."""
        parts = [name] if name else []
        if self.is_sample:
            parts.append(self.describe_cells())
        return ", ".join(parts)


def compute_umap(
    latent: ArrayLike,
    strata: Sequence[ArrayLike] = (),
    *,
    max_cells: int = MAX_CELLS,
    seed: int = 0,
) -> UMAPResult:
    """UMAP of a latent representation, of a stratified random sample if there are many cells.

    Exact Euclidean neighbours come from scikit-learn, the layout from umap-learn (McInnes et al.
    2018) with the parameters of `scanpy.tl.umap` (15 neighbours, `min_dist` 0.5).

    Parameters
    ----------
    latent
        Latent representation, [cells, latent].
    strata
        Categorical columns such as labels and batches, each [cells], the most important first. The
        sample has the same proportions of their categories.
    max_cells
        Maximum number of cells that are shown.
    seed
        Seed of the sample of cells and of the layout.

    Returns
    -------
    Coordinates, and which cells they belong to.

    Raises
    ------
    InvalidOptionError
        If the latent is not a matrix of finite numbers, there are fewer than 5 cells, or a column
        has another number of values.
    """
    points = np.asarray(latent, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] == 0:
        raise InvalidOptionError(f"Expected a latent [cells, latent]; got shape {points.shape}.")
    n_cells = len(points)
    cells = stratified_sample(n_cells, max_cells, strata, seed=seed)
    if len(cells) < MIN_CELLS:
        raise InvalidOptionError(
            f"Expected at least {MIN_CELLS} cells for a UMAP; got {len(cells)}."
        )
    points = points[cells]
    if not np.isfinite(points).all():
        raise InvalidOptionError("Expected a latent of finite numbers; some are NaN or infinite.")
    return UMAPResult(fit_layout(points, seed), cells, n_cells)


def fit_layout(points: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Coordinates of all points by umap-learn, [cells, 2]."""
    neighbors = nearest_with_self(points, min(N_NEIGHBORS, len(points)))
    # Spectral initialization needs more cells than neighbours.
    if len(points) > N_NEIGHBORS:
        layout = run_umap(points, neighbors, seed, "spectral")
        if np.isfinite(layout).all():
            return layout
    # If all cells are equal, the spectral initialization of umap-learn 0.5.5 is not finite.
    return run_umap(points, neighbors, seed, "random")


def run_umap(
    points: NDArray[np.float32],
    neighbors: tuple[NDArray[np.int64], NDArray[np.float32]],
    seed: int,
    init: str,
) -> NDArray[np.float32]:
    """Layout of umap-learn from precomputed neighbours, [cells, 2].

    Parameters
    ----------
    points
        Latent representation, [cells, latent].
    neighbors
        Indices and distances of the neighbours of each cell, [cells, neighbours].
    seed
        Seed of the layout.
    init
        `"spectral"` or `"random"`.
    """
    with warnings.catch_warnings():
        # umap-learn warns about intended options, and numba about umap-learn.
        warnings.simplefilter("ignore")
        from umap import UMAP

        layout = UMAP(
            n_neighbors=neighbors[0].shape[1],
            min_dist=MIN_DIST,
            n_epochs=FEW_EPOCHS if len(points) > MANY_CELLS else None,
            init=init,
            precomputed_knn=(*neighbors, None),
            # Without it, precomputed neighbours are ignored below 4,096 cells.
            force_approximation_algorithm=True,
            random_state=seed % 2**32,
            n_jobs=1,
        ).fit_transform(points)
    return np.asarray(layout, dtype=np.float32)


def nearest_with_self(
    points: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Nearest cells of each cell and their distances, [cells, k]; the first is the cell itself."""
    from sklearn.neighbors import NearestNeighbors

    # Without an argument a cell is never its own neighbour, even with duplicates.
    distances, indices = NearestNeighbors(n_neighbors=k - 1).fit(points).kneighbors()
    itself = np.arange(len(points))[:, None]
    return (
        np.hstack([itself, indices]),
        np.hstack([np.zeros((len(points), 1)), distances]).astype(np.float32),
    )


def umap(
    latent: ArrayLike,
    obs: pd.DataFrame | None = None,
    color: str | Sequence[str] = (),
    *,
    strata: Sequence[str] | None = None,
    max_cells: int = MAX_CELLS,
    seed: int = 0,
    result: UMAPResult | None = None,
) -> Figure:
    """Figure with the UMAP of a latent representation, one panel for each colour.

    Parameters
    ----------
    latent
        Latent representation, [cells, latent], such as `adata.obsm["X_scVI"]`.
    obs
        Table of the cells, such as `adata.obs`.
    color
        Columns of `obs`; without any there is one panel in one colour.
    strata
        Columns of `obs` that stratify the sample of cells, the most important first; by default
        those of `color` that are not floats.
    max_cells
        Maximum number of cells. If there are more, a random sample is shown, as the titles say.
    seed
        Seed of the choice of cells and of the layout.
    result
        Coordinates from :func:`compute_umap`, to reuse them.

    Raises
    ------
    InvalidOptionError
        As :func:`compute_umap` does, or if `obs` has another number of cells.
    UnknownKeyError
        If `obs` has no such column.
    """
    # A figure without pyplot needs no display and does not stay open.
    from matplotlib.figure import Figure

    points = np.asarray(latent)
    table = pd.DataFrame(index=range(len(points))) if obs is None else obs
    colors = [color] if isinstance(color, str) else list(color)
    if strata is None:
        strata = [c for c in colors if c in table and not pd.api.types.is_float_dtype(table[c])]
    check_columns(table, len(points), [*colors, *strata])
    if result is None:
        columns = [table[name].to_numpy() for name in strata]
        result = compute_umap(points, columns, max_cells=max_cells, seed=seed)
    panels = colors or [""]
    figure = Figure(figsize=(6.2 * len(panels), 4.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    shown = table.iloc[result.cells]
    for ax, name in zip(axes.flat, panels, strict=True):
        values = shown[name] if name else pd.Series(["cells"] * len(shown))
        embedding(result.coordinates, values, ax, title=result.title(name))
    return figure


def check_columns(table: pd.DataFrame, n_cells: int, names: Sequence[str]) -> None:
    """Check that a table has a row for each cell, and these columns.

    Raises
    ------
    InvalidOptionError, UnknownKeyError
        If it does not.
    """
    if len(table) != n_cells:
        raise InvalidOptionError(
            f"Expected a row of obs for each of {n_cells:,} cells; got {len(table):,}."
        )
    for name in names:
        if name not in table:
            raise UnknownKeyError(
                f"obs has no column '{name}'.{did_you_mean(name, map(str, table))}"
            )

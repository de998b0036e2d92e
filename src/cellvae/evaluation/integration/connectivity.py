"""Graph connectivity: whether the cells of each label are connected in the neighbour graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.evaluation.inputs import category_codes, check_complete, check_latent
from cellvae.evaluation.neighbours import nearest_cells


def graph_connectivity(latent: ArrayLike, labels: ArrayLike, *, k: int = 15) -> float:
    """Mean over labels of the fraction of their cells in the largest connected component.

    Two cells are connected if one is among the `k` nearest other cells of the other, and both have
    the same label.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    k
        Neighbours of a cell.

    Returns
    -------
    Mean above 0 (no cells connected) up to 1 (each label in one component).

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match, a cell has no label, or there are too few cells for `k`.
    """
    points = check_latent(latent)
    codes = category_codes(labels, len(points), "labels")
    check_complete(codes, "a label", "Leave the others out.")
    every = np.arange(len(points))
    return connectivity_from_neighbours(nearest_cells(points, k, every, every), codes)


def connectivity_from_neighbours(neighbours: NDArray[np.int64], codes: NDArray[np.int64]) -> float:
    """Connectivity from the neighbours of each cell [cells, k] and its label [cells]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_cells, k = neighbours.shape
    cells = np.repeat(np.arange(n_cells), k)
    ends = neighbours.ravel()
    same = codes[cells] == codes[ends]
    graph = coo_array((np.ones(same.sum()), (cells[same], ends[same])), shape=(n_cells, n_cells))
    # Edges are within labels, so that each component has one label.
    _, component = connected_components(graph.tocsr(), directed=False)
    sizes = np.bincount(component)
    n_labels = int(codes.max()) + 1
    largest = np.zeros(n_labels)
    np.maximum.at(largest, codes, sizes[component])
    n_of_label = np.bincount(codes, minlength=n_labels)
    present = n_of_label > 0
    return float(np.mean(largest[present] / n_of_label[present]))

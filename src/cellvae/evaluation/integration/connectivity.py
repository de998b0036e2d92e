"""Whether the cells of a label hang together in the graph of nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.evaluation.inputs import category_codes, check_complete, check_latent
from cellvae.evaluation.neighbours import nearest_cells


def graph_connectivity(latent: ArrayLike, labels: ArrayLike, *, k: int = 15) -> float:
    """Mean over labels of the share of their cells in the largest connected part.

    Two cells are connected where one is among the `k` nearest other cells of the other; paths of a
    label lead over its own cells only.

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
    Mean above 0 (every cell by itself) up to 1 (each label in one piece).

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a cell has no label, or there are too few cells for `k`.
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
    # Edges stay within a label, so that each part of the whole graph is of one label.
    _, part = connected_components(graph.tocsr(), directed=False)
    sizes = np.bincount(part)
    n_labels = int(codes.max()) + 1
    largest = np.zeros(n_labels)
    np.maximum.at(largest, codes, sizes[part])
    n_of_label = np.bincount(codes, minlength=n_labels)
    there = n_of_label > 0
    return float(np.mean(largest[there] / n_of_label[there]))

"""Scatter plot of cells in two dimensions, coloured by a category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_TAB10, MAX_TAB20 = 10, 20
"""Numbers of colours of both palettes."""


def embedding(
    coordinates: np.ndarray,
    values: Sequence[object] | pd.Series,
    ax: Axes,
    title: str = "",
    size: float | None = None,
) -> Axes:
    """Scatter plot of cells, coloured by category with a legend, or by float with a colour bar.

    Parameters
    ----------
    coordinates
        Positions [cells, 2].
    values
        Category or float of each cell [cells].
    ax
        Axes to draw on.
    title
        Title of the panel.
    size
        Area of a dot in square points; by default smaller for more cells.
    """
    import matplotlib.pyplot as plt

    # A categorical column keeps the order of its categories: '2' before '10'.
    column = pd.Series(values)
    area = size or float(np.clip(30_000 / max(1, len(coordinates)), 1, 20))
    if pd.api.types.is_float_dtype(column):
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
        x, y = coordinates.T
        dots = ax.scatter(x, y, s=area, c=numbers, cmap="viridis", linewidths=0, rasterized=True)
        ax.figure.colorbar(dots, ax=ax)
        return hide_ticks(ax, title)
    is_categorical = isinstance(column.dtype, pd.CategoricalDtype)
    categories = pd.Categorical(column if is_categorical else column.astype(object))
    if is_categorical:
        categories = categories.remove_unused_categories()
    names = list(categories.categories)
    palette = plt.get_cmap(
        "tab10" if len(names) <= MAX_TAB10 else "tab20" if len(names) <= MAX_TAB20 else "gist_ncar"
    )
    for i, name in enumerate(names):
        in_category = categories.codes == i
        colour = palette(i) if len(names) <= MAX_TAB20 else palette(i / len(names))
        ax.scatter(
            coordinates[in_category, 0],
            coordinates[in_category, 1],
            s=area,
            color=colour,
            label=str(name),
            linewidths=0,
            rasterized=True,
        )
    hide_ticks(ax, title)
    columns = 1 + len(names) // 18
    ax.legend(
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=8,
        markerscale=2.0,
        ncols=columns,
    )
    return ax


def hide_ticks(ax: Axes, title: str) -> Axes:
    """Set title and axis labels, and hide the ticks, whose values have no meaning."""
    ax.set_title(title, fontsize=11, loc="left")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("UMAP 1", fontsize=8)
    ax.set_ylabel("UMAP 2", fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return ax

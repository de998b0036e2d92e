"""Scatter plot of a statistic of measured counts and of counts drawn from a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ppc_scatter(
    measured: np.ndarray,
    drawn: np.ndarray,
    ax: Axes | None = None,
    title: str = "",
    label: str | None = None,
) -> Axes:
    """Scatter plot of genes or cells, with the line of equality.

    Parameters
    ----------
    measured
        Statistic of measured counts, [genes or cells].
    drawn
        Statistic of drawn counts, [genes or cells].
    ax
        Axes to draw on; None for a new figure.
    title
        Title of the panel.
    label
        Name of the model for a legend; None for no legend.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(4, 3.8), layout="constrained")
    finite = np.isfinite(measured) & np.isfinite(drawn)
    first, second = measured[finite], drawn[finite]
    ax.scatter(first, second, s=6, alpha=0.5, linewidths=0, rasterized=True, label=label)
    if len(first):
        ends = [min(first.min(), second.min()), max(first.max(), second.max())]
        ax.plot(ends, ends, color="0.5", linewidth=0.8, linestyle="--")
    ax.set_xlabel("Measured")
    ax.set_ylabel("Drawn from the model")
    ax.set_title(title, fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    if label is not None:
        ax.legend(frameon=False, fontsize=9)
    return ax

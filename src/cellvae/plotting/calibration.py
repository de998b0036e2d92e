"""Calibration plot: coverage of the intervals of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def calibration_curve(
    levels: np.ndarray,
    coverage: np.ndarray,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Plot the coverage of central intervals by their level, with the line of perfect calibration.

    Parameters
    ----------
    levels
        Levels of the intervals, from 0 to 1.
    coverage
        Fraction of the measured counts within each.
    ax
        Axes to draw on; None for a new figure.
    label
        Name of the model for a legend; None for no legend.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(4, 3.8), layout="constrained")
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle="--")
    ax.plot(levels, coverage, marker="o", markersize=3, linewidth=1.5, label=label)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("Level of the interval")
    ax.set_ylabel("Fraction of measured counts in it")
    ax.set_title("Calibration", fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    if label is not None:
        ax.legend(frameon=False, fontsize=9)
    return ax

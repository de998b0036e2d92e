"""Volcano plot of differential expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

FDR_COLUMN_PREFIX = "is_de_fdr_"
LINE_HEIGHT = 0.05
"""Height of a label, as a fraction of the panel."""


def volcano(
    table: pd.DataFrame,
    ax: Axes | None = None,
    title: str | None = None,
    n_labels: int = 10,
) -> Axes:
    """Scatter plot of genes by change (x) and probability of a change (y); called genes in red.

    Parameters
    ----------
    table
        One comparison of `differential_expression` in its mode "change", with genes as index.
    ax
        Axes to draw on; None for a new figure.
    title
        Title of the panel; None for the name of the comparison.
    n_labels
        Number of called genes to label, those with the largest change.

    Raises
    ------
    InvalidDataError
        If columns are missing, or the table has several comparisons.
    """
    check_table(table)
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
    change = table["lfc_mean"].to_numpy()
    probability = table["proba_de"].to_numpy()
    calls = [name for name in table.columns if str(name).startswith(FDR_COLUMN_PREFIX)]
    called = table[calls[0]].to_numpy(dtype=bool) if calls else np.zeros(len(table), dtype=bool)
    for chosen, colour, label in (
        (~called, "0.7", "Not called"),
        (called, "tab:red", f"Called ({called.sum():,})"),
    ):
        ax.scatter(
            change[chosen],
            probability[chosen],
            s=7,
            alpha=0.6,
            linewidths=0,
            color=colour,
            rasterized=True,
            label=label,
        )
    named = np.flatnonzero(called)
    named = named[np.argsort(-np.abs(change[named]), kind="stable")][:n_labels]
    label_points(ax, change, probability, named, [str(name) for name in table.index])
    ax.set_xlabel("Change of expression (log2)")
    ax.set_ylabel("Probability of a change")
    if title is None:
        title = str(table["comparison"].iloc[0]) if "comparison" in table and len(table) else ""
    ax.set_title(title, fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return ax


def label_points(
    ax: Axes,
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    chosen: NDArray[np.int64],
    names: Sequence[str],
) -> None:
    """Label some dots in a column on either side, sorted by height, with a line to each dot.

    The most certain genes all have a probability close to 1, so that labels at the dots would
    overlap.
    """
    if not len(chosen):
        return
    low, high = ax.get_xlim()
    reach = max(-low, high, 1e-6)
    ax.set_xlim(-1.75 * reach, 1.75 * reach)
    bottom, top = ax.get_ylim()
    step = LINE_HEIGHT * (top - bottom)
    for side in (-1, 1):
        on_side = [int(i) for i in chosen if (x[i] >= 0) == (side > 0)]
        on_side.sort(key=lambda i: -y[i])
        heights: list[float] = []
        for i in on_side:
            highest = heights[-1] - step if heights else top
            heights.append(min(float(y[i]), highest))
        # A column that exceeds the bottom is shifted up.
        lift = max(0.0, bottom + step / 2 - heights[-1]) if heights else 0.0
        for i, place in zip(on_side, heights, strict=True):
            ax.annotate(
                names[i],
                (x[i], y[i]),
                xytext=(side * 1.18 * reach, place + lift),
                fontsize=7,
                ha="left" if side > 0 else "right",
                va="center",
                arrowprops={
                    "arrowstyle": "-",
                    "color": "0.6",
                    "linewidth": 0.4,
                    "shrinkA": 0,
                    "shrinkB": 2,
                    "relpos": (0.0 if side > 0 else 1.0, 0.5),
                },
            )


def check_table(table: pd.DataFrame) -> None:
    """Check that a table has one comparison of differential expression.

    Raises
    ------
    InvalidDataError
        If it has not.
    """
    missing = [name for name in ("lfc_mean", "proba_de") if name not in table]
    if missing:
        raise InvalidDataError(
            f"Expected the table of differential_expression(mode='change'); got one without "
            f"{' and '.join(missing)}."
        )
    if "comparison" in table and table["comparison"].nunique() > 1:
        raise InvalidDataError(
            f"Expected one comparison; got {table['comparison'].nunique()}. Choose one, such as "
            f"table[table['comparison'] == {str(table['comparison'].iloc[0])!r}]."
        )

"""Volcano plot: how much each gene changes, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CALLED = "is_de_fdr_"


def volcano(
    table: pd.DataFrame,
    ax: Axes | None = None,
    title: str | None = None,
    n_labels: int = 10,
) -> Axes:
    """Genes as dots by change (x) and probability of a change (y); genes that are called in red.

    Parameters
    ----------
    table
        One comparison of `differential_expression` in its mode "change", with genes as index.
    ax
        Where to draw; None for a new figure.
    title
        Title of the panel; None for the name of the comparison.
    n_labels
        Called genes that are named, those that change most.

    Raises
    ------
    InvalidDataError
        If columns are missing, or the table holds several comparisons.
    """
    check_table(table)
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
    change = table["lfc_mean"].to_numpy()
    chance = table["proba_de"].to_numpy()
    calls = [name for name in table.columns if str(name).startswith(CALLED)]
    called = table[calls[0]].to_numpy(dtype=bool) if calls else np.zeros(len(table), dtype=bool)
    for chosen, colour, label in (
        (~called, "0.7", "Not called"),
        (called, "tab:red", f"Called ({called.sum():,})"),
    ):
        ax.scatter(
            change[chosen],
            chance[chosen],
            s=7,
            alpha=0.6,
            linewidths=0,
            color=colour,
            rasterized=True,
            label=label,
        )
    named = np.flatnonzero(called)
    for place in named[np.argsort(-np.abs(change[named]), kind="stable")][:n_labels]:
        ax.annotate(
            str(table.index[place]),
            (change[place], chance[place]),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=7,
            ha="center",
        )
    ax.set_xlabel("Change of expression (log2)")
    ax.set_ylabel("Probability of a change")
    if title is None:
        title = str(table["comparison"].iloc[0]) if "comparison" in table and len(table) else ""
    ax.set_title(title, fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return ax


def check_table(table: pd.DataFrame) -> None:
    """Refuse tables of something else, and those of several comparisons."""
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

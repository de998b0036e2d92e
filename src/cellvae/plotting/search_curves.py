"""Figure of a search: a metric by epoch, a line for each trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.plotting.training_curves import label_epochs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def search_curves(
    history: pd.DataFrame, metric: str, best_trial: str | None = None, ax: Axes | None = None
) -> Axes:
    """Plot a metric by epoch, a line for each trial; a dot is where it ended.

    Parameters
    ----------
    history
        Columns `trial`, `epoch` and the metric.
    metric
        Name of the metric.
    best_trial
        Trial to mark.
    ax
        Axes to draw on; None for a new figure.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for trial, rows in history.dropna(subset=[metric]).groupby("trial", sort=False):
        is_best = trial == best_trial
        style = {"color": "#dd8452", "zorder": 3} if is_best else {"color": "0.7"}
        label = f"best: {trial}" if is_best else None
        ax.plot(rows["epoch"], rows[metric], linewidth=1.8 if is_best else 1, label=label, **style)
        ax.plot(rows["epoch"].iloc[-1], rows[metric].iloc[-1], "o", markersize=3, **style)
    label_epochs(ax)
    ax.set_ylabel(metric)
    ax.spines[["top", "right"]].set_visible(False)
    if best_trial is not None:
        ax.legend(frameon=False, fontsize=9)
    return ax

"""Training curves: ELBO, reconstruction, KL, KL weight and other metrics by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "elbo": "Negative ELBO (nats per cell)",
    "reconstruction_loss": "Reconstruction (nats per cell)",
    "kl_local": "KL (nats per cell)",
    "kl_weight": "KL weight",
}
COLOURS = {"train": "#4c72b0", "validation": "#dd8452"}


def training_curve(table: pd.DataFrame, part: str, ax: Axes, best_epoch: int | None = None) -> Axes:
    """Plot one term of the loss by epoch, for training and validation cells.

    Parameters
    ----------
    table
        Metrics by epoch.
    part
        `"elbo"`, `"reconstruction_loss"`, `"kl_local"` or `"kl_weight"`.
    ax
        Axes to draw on.
    best_epoch
        Epoch to mark.
    """
    names = {"train": f"{part}_train", "validation": f"{part}_validation"}
    if part in table:
        names = {"train": part}
    for split, name in names.items():
        if name in table:
            column = table[name].dropna()
            ax.plot(column.index, column, color=COLOURS[split], label=split, linewidth=1.5)
            if (
                best_epoch is not None
                and best_epoch in column.index
                and (split == "validation" or names.get("validation") not in table)
            ):
                ax.plot(
                    [best_epoch], [column.loc[best_epoch]], "o", color=COLOURS[split], markersize=6
                )
    if best_epoch is not None:
        ax.axvline(
            best_epoch, color="0.5", linewidth=0.8, linestyle="--", label=f"best epoch {best_epoch}"
        )
    label_epochs(ax)
    ax.set_title(PANELS.get(part, part), fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def label_epochs(ax: Axes) -> None:
    """Label the x axis, with ticks at whole epochs."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("Epoch")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def training_curves(table: pd.DataFrame, best_epoch: int | None = None) -> Figure:
    """Figure with the four panels of a training run.

    Parameters
    ----------
    table
        Metrics by epoch, as `model.history.table`.
    best_epoch
        Epoch to mark.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6), constrained_layout=True, sharex=True)
    for ax, part in zip(axes.flat, PANELS, strict=True):
        training_curve(table, part, ax, best_epoch)
    focus_after_warmup(axes.flat[0], table, "elbo")
    focus_after_warmup(axes.flat[1], table, "reconstruction_loss")
    axes.flat[0].legend(frameon=False, fontsize=9)
    return figure


def focus_after_warmup(ax: Axes, table: pd.DataFrame, part: str) -> None:
    """Limit the y axis to the epochs after the steep start."""
    columns = [
        table[name].dropna() for name in (f"{part}_train", f"{part}_validation") if name in table
    ]
    if not columns or len(columns[0]) < 20:
        return
    shown = pd.concat([c.iloc[max(1, len(c) // 20) :] for c in columns])
    low, high = shown.min(), shown.max()
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def metric_curves(
    table: pd.DataFrame, metrics: Sequence[str], best_epoch: int | None = None
) -> Figure:
    """Figure with a panel for each metric by epoch.

    Parameters
    ----------
    table
        Metrics by epoch, as `model.history.table`.
    metrics
        Names of columns.
    best_epoch
        Epoch to mark.
    """
    import matplotlib.pyplot as plt

    n_columns = min(3, len(metrics))
    n_rows = -(-len(metrics) // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4 * n_columns, 3 * n_rows),
        constrained_layout=True,
        squeeze=False,
    )
    for ax, name in zip(axes.flat, metrics, strict=False):
        column = table[name].dropna()
        ax.plot(column.index, column, color=COLOURS["train"], marker=".", linewidth=1.5)
        if best_epoch is not None:
            ax.axvline(best_epoch, color="0.5", linewidth=0.8, linestyle="--")
        ax.set_title(name, fontsize=10, loc="left")
        label_epochs(ax)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes.flat[len(metrics) :]:
        ax.set_axis_off()
    return figure

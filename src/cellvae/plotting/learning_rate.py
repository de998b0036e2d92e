"""Figure of a learning-rate search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def learning_rate_curve(
    lrs: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the loss by learning rate, on a logarithmic axis.

    Parameters
    ----------
    lrs
        Learning rates.
    losses
        Loss at each rate; nats per cell.
    smoothed
        Running average of the losses.
    suggestion
        Rate to mark.
    ax
        Axes to draw on; None for a new figure.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
    ax.plot(lrs, losses, color="0.75", linewidth=1, label="loss of a batch")
    ax.plot(lrs, smoothed, color="#4c72b0", linewidth=1.8, label="smoothed")
    if suggestion is not None:
        ax.axvline(
            suggestion,
            color="#dd8452",
            linewidth=1,
            linestyle="--",
            label=f"suggestion {suggestion:.2g}",
        )
    ax.set_xscale("log")
    ax.set_xlabel("Learning rate")
    ax.set_ylabel("Loss (nats per cell)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return ax

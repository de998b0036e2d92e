"""Figures of a page as SVG."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellvae.plotting.calibration import calibration_curve
from cellvae.plotting.embedding import embedding
from cellvae.plotting.ppc import ppc_scatter
from cellvae.plotting.training_curves import PANELS, focus_after_warmup, training_curve

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MAX_CATEGORIES = 40
"""Categories of a legend; more colours cannot be distinguished."""


def figure_to_svg(figure: Figure) -> str:
    """Figure as SVG, with text as text, which is searchable and accessible."""
    import matplotlib as mpl

    text = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def draw_figure(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """Call a function that draws on a new figure, and return the figure as SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure)
    return figure_to_svg(figure)


def curve_svgs(history: pd.DataFrame, best_epoch: int | None) -> dict[str, str]:
    """Curve of each logged term of the loss, by title."""
    svgs = {}
    for part, title in PANELS.items():
        if part in history or f"{part}_train" in history:

            def draw(figure: Figure, part: str = part) -> None:
                ax = training_curve(history, part, figure.subplots(), best_epoch)
                focus_after_warmup(ax, history, part)
                ax.legend(frameon=False, fontsize=8)

            svgs[title] = draw_figure(4.2, 2.8, draw)
    return svgs


def embedding_svg(coordinates: NDArray[np.float32], values: pd.Series, name: str) -> str:
    """Scatter plot of cells in two dimensions, coloured by a column."""
    is_number = getattr(values.dtype, "kind", "") == "f"
    n_names = 0 if is_number else values.nunique()
    if n_names > MAX_CATEGORIES:
        largest = values.value_counts().index[: MAX_CATEGORIES - 1]
        values = values.astype(object).where(values.isin(largest), "(others)")
        n_names = MAX_CATEGORIES
    longest = 4 if is_number else max((len(str(v)) for v in values.unique()), default=0)
    beside = min(3.5, 0.5 + 0.075 * longest) * (1 + n_names // 18)

    def draw(figure: Figure) -> None:
        embedding(coordinates, values, figure.subplots(), title=name)

    return draw_figure(4.6 + beside, 4.4, draw)


def scatter_svg(measured: NDArray[np.float64], simulated: NDArray[np.float64], title: str) -> str:
    """Scatter plot of a statistic of measured and of drawn counts."""

    def draw(figure: Figure) -> None:
        ppc_scatter(measured, simulated, figure.subplots(), title)

    return draw_figure(3.4, 3.2, draw)


def calibration_svg(coverage: pd.Series) -> str:
    """Calibration plot: coverage of intervals by their level."""
    levels, fractions = coverage.index.to_numpy(float), coverage.to_numpy(float)

    def draw(figure: Figure) -> None:
        calibration_curve(levels, fractions, figure.subplots())

    return draw_figure(3.4, 3.2, draw)

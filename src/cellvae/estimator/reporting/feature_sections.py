"""Sections of the report on features: tables by feature, and posterior predictive checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import CellvaeError
from cellvae.inference.output_features import AXES
from cellvae.report import Chart, Gallery, Grid, Note, Section

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.estimator.base_model import BaseModel


def empty_section(title: str, reason: str) -> Section:
    """Section without figures that says why it has none."""
    return Section(title=title, parts=(Note(text=reason),))


def feature_sections(
    model: BaseModel, adata: AnnData | None, indices: NDArray[np.int64]
) -> list[Section]:
    """Sections on features that a class of models reports, such as proteins."""
    sections = []
    for title, table in model.feature_tables(adata, indices).items():
        rows = tuple(
            (
                str(name),
                *(f"{value:,.3g}" if isinstance(value, float) else str(value) for value in row),
            )
            for name, row in zip(table.index, table.itertuples(index=False), strict=True)
        )
        grid = Grid(header=(str(table.index.name or ""), *map(str, table.columns)), rows=rows)
        sections.append(Section(title=title, parts=(grid,)))
    return sections


def checks_section(
    model: BaseModel,
    adata: AnnData | None,
    indices: NDArray[np.int64],
    output: str | None,
    silent: bool,
) -> Section:
    """Section with posterior predictive checks: simulated counts against measured ones.

    Parameters
    ----------
    model, adata, indices
        Model, cells (None for those of the model), and which of them are checked.
    output
        Output that is checked; None for a model without outputs.
    silent
        Whether no progress is shown.
    """
    from cellvae.inference.criticism.posterior_predictive_check import PosteriorPredictiveCheck
    from cellvae.report.figures import calibration_svg, scatter_svg

    features = AXES.get(output or "", "genes")
    several = len(model.registration.axes) > 1
    title = "Do its counts look like the data?"
    if several:
        title = f"Do its counts of {features} look like the data?"
    cells = model.adata if adata is None else adata
    assert cells is not None
    if not model.expects_counts(model.config):
        return empty_section(title, "The likelihood is not one of counts.")
    if output is None or not isinstance(
        getattr(model.registration.keys, "layer", None), str | None
    ):
        return empty_section(title, "There are no checks for this class of models.")
    try:
        checked: Any = model
        check = PosteriorPredictiveCheck(
            cells, {"model": checked}, n_samples=3, indices=indices, output=output, silent=silent
        )
        genes = check.coefficient_of_variation("cells")
        zeros = check.zero_fraction()
        coverage = check.calibration()
    except CellvaeError as error:
        return empty_section(title, f"They could not be made: {error}")
    pairs = {
        f"Variation of {features} (CV)": (genes["Raw"].to_numpy(), genes["model"].to_numpy()),
        f"Fraction of zeros of {features}": (zeros["Raw"].to_numpy(), zeros["model"].to_numpy()),
    }
    noun = features.removesuffix("s")
    text = (
        f"Each dot is a {noun}, over {len(check.cells):,} cells: on the line, the model draws "
        "counts like those measured. A calibration above the line: counts vary less than the model "
        "thinks."
    )
    charts = [
        Chart(svg=scatter_svg(measured, simulated, name), title=f"{name}, measured and drawn")
        for name, (measured, simulated) in pairs.items()
    ]
    charts.append(Chart(svg=calibration_svg(coverage["model"]), title="Calibration"))
    return Section(title=title, parts=(Gallery(charts=tuple(charts), caption=text),))

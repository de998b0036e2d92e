"""What a model tells on its page: run, options, data, latent space, criticism and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.core.folders import check_output_folder
from cellvae.core.seeds import isolated_rng
from cellvae.errors import CellvaeError, InvalidOptionError, UnknownKeyError, did_you_mean
from cellvae.estimator.summary import MAIN_OPTIONS
from cellvae.report import Chart, Facts, Gallery, Grid, Note, RunSummary, Section, write_page
from cellvae.version import __version__

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.estimator.base_model import BaseModel

MAX_CHECKED_CELLS = 1_000
"""Cells whose counts are drawn again."""
MAX_LISTED = 12
SCORES = {
    "knn_label_accuracy": "label found by its neighbours (kNN accuracy)",
    "knn_label_f1": "the same, every label counting alike (F1)",
    "ilisi": "batches mixed among neighbours (iLISI)",
    "asw_batch": "batches mixed within labels (silhouette)",
    "bras": "batches mixed within labels, each against all others (BRAS)",
    "asw_label": "labels apart (silhouette)",
    "nmi": "clusters and labels (NMI)",
    "ari": "clusters and labels (ARI)",
    "graph_connectivity": "cells of a label connected",
    "pcr": "variance that batches do not explain",
}


def write_report(
    model: BaseModel,
    path: str | Path,
    adata: AnnData | None = None,
    *,
    batch_key: str | None = None,
    labels_key: str | None = None,
    keys: Sequence[str] = (),
    n_cells: int = 2_000,
    seed: int = 0,
    silent: bool = False,
) -> Path:
    """Write a page about a model and its training: one HTML file that needs nothing else.

    Parameters
    ----------
    model
        Model, trained or not.
    path
        File to write, ending in `.html`; its folder is made.
    adata
        Cells; None for those that the model holds, without which figures of cells are left out.
    batch_key, labels_key
        Columns of `adata.obs` for colours and scores; None for those of the set-up.
    keys
        Further columns for colours.
    n_cells
        Cells drawn at most, chosen at random with the shares of labels and batches; scores and
        checks are of them too.
    seed
        Seed of the choice and of the UMAP.
    silent
        Whether no progress is shown.

    Raises
    ------
    InvalidOptionError
        If the file does not end in `.html`, or there are too few cells to draw.
    UnknownKeyError
        If there is no such column.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in (".html", ".htm"):
        raise InvalidOptionError(f"Expected a file that ends in .html; got '{path}'.")
    check_output_folder(target.parent, "the folder of the page")
    if n_cells < 10:
        raise InvalidOptionError(f"Expected n_cells of at least 10; got {n_cells}.")
    cells = model.adata if adata is None else adata
    chosen = report_columns(model, cells, batch_key, labels_key, keys)
    sections = [run_section(model), options_section(model), data_section(model)]
    if cells is None:
        sections.append(empty_section("Cells", "The model holds no cells: give adata to see them."))
    elif not model.is_trained:
        sections.append(
            empty_section("Cells", "The model has not been trained: it knows no latent.")
        )
    else:
        numbers = choose_cells(cells.obs, chosen, n_cells, seed)
        with isolated_rng(seed, "report"):
            latent = model.get_latent_representation(adata, indices=numbers)  # type: ignore[attr-defined]
            obs = cells.obs.iloc[numbers]
            sections.append(latent_section(latent, obs, chosen, seed, cells.n_obs))
            sections.append(scores_section(latent, obs, chosen))
            sections.append(checks_section(model, adata, numbers[:MAX_CHECKED_CELLS], silent))
    kind = type(model).__name__
    registration = model.registration
    summary = RunSummary(
        title=f"{kind} of {registration.n_cells:,} cells",
        subtitle=f"{registration.n_genes:,} genes, {date.today():%d %B %Y}",
        sections=tuple(sections),
        footer=f"Written by cellvae {__version__}.",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_page(summary, target)
    return target


def report_columns(
    model: BaseModel,
    cells: AnnData | None,
    batch_key: str | None,
    labels_key: str | None,
    keys: Sequence[str],
) -> dict[str, str | None]:
    """Columns of batch and labels, and further ones, that are there.

    Raises
    ------
    UnknownKeyError
        If one that was asked for is not.
    """
    given = model.registration.keys
    asked = {"batch": batch_key, "labels": labels_key} | {f"key {key}": key for key in keys}
    if cells is None:
        return asked
    for name in asked.values():
        if name is not None and name not in cells.obs:
            raise UnknownKeyError(
                f"adata.obs has no column '{name}'.{did_you_mean(name, list(cells.obs))}"
            )
    for part, name in (("batch", "batch_key"), ("labels", "labels_key")):
        known = getattr(given, name, None)
        if asked[part] is None and known is not None and known in cells.obs:
            asked[part] = known
    return asked


def choose_cells(
    obs: pd.DataFrame, chosen: Mapping[str, str | None], n_cells: int, seed: int
) -> NDArray[np.int64]:
    """Indices of the cells that are drawn, in random order, with the shares of labels and batches.

    Parameters
    ----------
    obs
        Table of all cells.
    chosen
        Columns by what they are, as :func:`columns_of` returns them.
    n_cells
        Most cells to choose.
    seed
        Seed of the choice.
    """
    from cellvae.plotting.sampling import stratified_sample

    names = [name for name in (chosen["labels"], chosen["batch"]) if name is not None]
    columns = [obs[name].to_numpy() for name in dict.fromkeys(names)]
    cells = stratified_sample(len(obs), n_cells, columns, seed=seed)
    return np.random.default_rng(seed).permutation(cells)


def empty_section(title: str, reason: str) -> Section:
    """Part of the page that says why it is empty."""
    return Section(title=title, parts=(Note(text=reason),))


def run_section(model: BaseModel) -> Section:
    """How training went and why it ended."""
    from cellvae.report.figures import curve_svgs

    report = model.training_report
    if report is None or not model.history.epochs:
        return empty_section("Training", "The model has not been trained.")
    svgs = curve_svgs(model.history.table, report.best_epoch)
    curves = Gallery(
        charts=tuple(Chart(svg=svg, title=f"{name} by epoch") for name, svg in svgs.items()),
        caption="Loss by epoch; lower is better. Validation cells are not trained on.",
    )
    last = {name: model.history.last_numeric(name) for name in model.history.names}
    values = tuple((name, f"{value:,.4g}") for name, value in last.items() if value is not None)
    parts = (
        Facts(values=tuple(report.summary_rows())),
        curves,
        Facts(values=values, folded="All metrics of the last epoch"),
    )
    return Section(title="Training", parts=parts)


def options_section(model: BaseModel) -> Section:
    """Options of the model: those that are not the default, and all of them."""
    values = {f.name: str(getattr(model.config, f.name)) for f in fields(model.config)}
    chosen = [
        (f.name, values[f.name])
        for f in fields(model.config)
        if f.name in MAIN_OPTIONS or getattr(model.config, f.name) != f.default
    ]
    n_weights = sum(p.numel() for p in model.module.parameters())
    parts = (
        Facts(values=(("weights", f"{n_weights:,}"), *chosen)),
        Facts(values=tuple(values.items()), folded="All options"),
    )
    return Section(title="Model", parts=parts)


def data_section(model: BaseModel) -> Section:
    """Cells, genes and what was set up."""
    registration = model.registration
    values = [
        ("cells", f"{registration.n_cells:,}"),
        ("genes", f"{registration.n_genes:,}"),
        *((name, str(value)) for name, value in registration.keys.to_json().items()),
    ]
    if model.split is not None:
        sizes = [len(x) for x in (model.split.train, model.split.validation, model.split.test)]
        values.append(("training, validation, test", ", ".join(f"{n:,}" for n in sizes)))
    parts: list[Facts | Grid] = [Facts(values=tuple(values))]
    if model.adata is not None:
        for key in ("batch_key", "labels_key"):
            name = getattr(registration.keys, key, None)
            if name is not None and name in model.adata.obs:
                parts.append(value_counts(model.adata.obs[name], name))
    return Section(title="Data", parts=tuple(parts))


def value_counts(column: pd.Series, name: str) -> Grid:
    """Cells of each value of a column, the commonest first."""
    counts = column.value_counts()
    counts = counts[counts > 0]
    rows = [(str(value), f"{n:,}") for value, n in counts.iloc[:MAX_LISTED].items()]
    if len(counts) > MAX_LISTED:
        others = counts.iloc[MAX_LISTED:]
        rows.append((f"{len(others)} more", f"{others.sum():,}"))
    return Grid(header=(name, "cells"), rows=tuple(rows))


def latent_section(
    latent: NDArray[np.float32],
    obs: pd.DataFrame,
    chosen: Mapping[str, str | None],
    seed: int,
    n_cells: int,
) -> Section:
    """Latent space in two dimensions, coloured by each column.

    Parameters
    ----------
    latent, obs
        Latent representation and table of the cells that are drawn.
    chosen
        Columns by what they are.
    seed
        Seed of the layout.
    n_cells
        Number of all cells.
    """
    from cellvae.plotting.layout import UMAPResult, compute_umap
    from cellvae.report.figures import embedding_svg

    try:
        layout = compute_umap(latent, max_cells=len(latent), seed=seed)
    except Exception as error:
        # The rest of the page does not need it.
        return empty_section("Latent space", f"The UMAP could not be computed: {error}")
    coordinates, cells = layout.coordinates, UMAPResult(layout.coordinates, layout.cells, n_cells)
    names = list(dict.fromkeys(name for name in chosen.values() if name is not None))
    charts = [
        Chart(
            svg=embedding_svg(coordinates, obs[name], cells.title(name)),
            title=f"UMAP of the latent space, coloured by {name}",
        )
        for name in names
    ]
    if not charts:
        everything = pd.Series(["cells"] * len(latent))
        svg = embedding_svg(coordinates, everything, cells.title())
        charts = [Chart(svg=svg, title="UMAP of the latent space")]
    caption = f"UMAP of the latent means of {cells.describe_cells()}."
    return Section(title="Latent space", parts=(Gallery(charts=tuple(charts), caption=caption),))


def scores_section(
    latent: NDArray[np.float32], obs: pd.DataFrame, chosen: Mapping[str, str | None]
) -> Section:
    """Scores of mixing and of labels, altogether and for each label."""
    from cellvae.evaluation import definitions_of, integration_scores

    columns = {part: chosen[part] for part in ("batch", "labels")}
    codes = {
        part: None if name is None or obs[name].nunique() < 2 else obs[name].astype(str).to_numpy()
        for part, name in columns.items()
    }
    if all(values is None for values in codes.values()):
        return empty_section("Scores", "No batches or labels: give batch_key and labels_key.")
    try:
        scores = integration_scores(latent, codes["batch"], codes["labels"])
    except CellvaeError as error:
        return empty_section("Scores", f"They could not be computed: {error}")
    rows = tuple((SCORES.get(name, name), f"{value:.3f}") for name, value in scores.items())
    definitions = {SCORES.get(n, n): text for n, text in definitions_of([*scores]).items()}
    parts: list[Grid | Note | Facts] = [
        Grid(header=("score, higher is better", ""), rows=rows),
        Facts(
            values=tuple(definitions.items()),
            folded=f"What these scores are (cellvae {__version__})",
        ),
    ]
    if codes["labels"] is not None:
        parts.append(
            scores_by_label(latent, codes["labels"], codes["batch"], str(columns["labels"]))
        )
    return Section(title="Scores", parts=tuple(parts))


def scores_by_label(
    latent: NDArray[np.float32],
    labels: NDArray[Any],
    batch: NDArray[Any] | None,
    name: str,
) -> Grid:
    """How each label does: share of its cells whose neighbours have it, and how mixed they are."""
    from sklearn.neighbors import NearestNeighbors

    k = min(15, len(latent) - 1)
    near = NearestNeighbors(n_neighbors=k + 1).fit(latent).kneighbors(latent)[1][:, 1:]
    own = (labels[near] == labels[:, None]).mean(axis=1)
    rows = []
    for label in pd.Series(labels).value_counts().index:
        mine = labels == label
        row = [str(label), f"{mine.sum():,}", f"{own[mine].mean():.2f}"]
        if batch is not None:
            other = (batch[near[mine]] != batch[mine][:, None]).mean()
            shares = pd.Series(batch[mine]).value_counts(normalize=True)
            expected = 1 - float((shares**2).sum())
            row.append("" if expected == 0 else f"{other / expected:.2f}")
        rows.append(tuple(row))
    header = (name, "cells", "neighbours alike")
    return Grid(
        header=header if batch is None else (*header, "batches mixed (1: at random)"),
        rows=tuple(rows),
    )


def checks_section(
    model: BaseModel, adata: AnnData | None, numbers: NDArray[np.int64], silent: bool
) -> Section:
    """Counts drawn from the model beside those that were measured."""
    from cellvae.inference.criticism.posterior_predictive_check import PosteriorPredictiveCheck
    from cellvae.report.figures import calibration_svg, scatter_svg

    title = "Do its counts look like the data?"
    cells = model.adata if adata is None else adata
    assert cells is not None
    if not model.expects_counts(model.config):
        return empty_section(title, "The likelihood is not one of counts.")
    if not isinstance(getattr(model.registration.keys, "layer", None), str | None):
        return empty_section(title, "Checks of this kind of model are not there.")
    try:
        checked: Any = model
        layer = model.registration.keys.layer
        check = PosteriorPredictiveCheck(
            cells, {"model": checked}, layer, n_samples=3, indices=numbers, silent=silent
        )
        genes = check.coefficient_of_variation("cells")
        zeros = check.zero_fraction()
        coverage = check.calibration()
    except CellvaeError as error:
        return empty_section(title, f"They could not be made: {error}")
    pairs = {
        "Variation of genes (CV)": (genes["Raw"].to_numpy(), genes["model"].to_numpy()),
        "Share of zeros of genes": (zeros["Raw"].to_numpy(), zeros["model"].to_numpy()),
    }
    text = (
        f"Each dot is a gene, over {len(numbers):,} cells: on the line, the model draws counts "
        "like those measured. A calibration above the line: counts vary less than the model thinks."
    )
    charts = [
        Chart(svg=scatter_svg(measured, simulated, name), title=f"{name}, measured and drawn")
        for name, (measured, simulated) in pairs.items()
    ]
    charts.append(Chart(svg=calibration_svg(coverage["model"]), title="Calibration"))
    return Section(title=title, parts=(Gallery(charts=tuple(charts), caption=text),))

"""HTML report of a model: run, options, data, latent space, scores and predictive checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.core.files.output_files import check_output_folder
from cellvae.core.seeds import isolated_rng
from cellvae.errors import CellvaeError, InvalidOptionError, UnknownKeyError, did_you_mean
from cellvae.estimator.reporting.feature_sections import (
    checks_section,
    empty_section,
    feature_sections,
)
from cellvae.estimator.reporting.summary import MAIN_OPTIONS
from cellvae.report import Chart, Facts, Gallery, Grid, Note, RunSummary, Section, write_page
from cellvae.version import __version__

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.data import Registration
    from cellvae.estimator.base_model import BaseModel

MAX_CHECKED_CELLS = 1_000
"""Maximum number of cells in posterior predictive checks."""
MAX_LISTED = 12
"""Maximum number of values that a table of a column lists."""
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
    """Write a report on the model and its training: one HTML file without external resources.

    Parameters
    ----------
    model
        Model, trained or not.
    path
        File to write, ending in `.html`; its folder is created.
    adata
        Cells; None for those of the model, without which there are no figures of cells.
    batch_key, labels_key
        Columns of `adata.obs` for colours and scores; None for those of the set-up.
    keys
        Further columns for colours.
    n_cells
        Maximum number of cells in figures, scores and checks; a random sample, stratified by labels
        and batches.
    seed
        Seed of the sample and of the UMAP.
    silent
        Whether no progress is shown.

    Raises
    ------
    InvalidOptionError
        If the file does not end in `.html`, or `n_cells` is below 10.
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
    columns = report_columns(model, cells, batch_key, labels_key, keys)
    sections = [run_section(model), options_section(model), data_section(model)]
    if cells is None:
        sections.append(empty_section("Cells", "The model holds no cells: give adata to see them."))
    elif not model.is_trained:
        sections.append(
            empty_section("Cells", "The model has not been trained: it has no latent space.")
        )
    else:
        indices = sample_cells(cells.obs, columns, n_cells, seed)
        with isolated_rng(seed, "report"):
            latent = model.get_latent_representation(adata, indices=indices)  # type: ignore[attr-defined]
            obs = cells.obs.iloc[indices]
            sections.append(latent_section(latent, obs, columns, seed, cells.n_obs))
            sections.append(scores_section(latent, obs, columns))
            sections += feature_sections(model, adata, indices[:MAX_CHECKED_CELLS])
            for output in getattr(model.module, "outputs", (None,)):
                checked = indices[:MAX_CHECKED_CELLS]
                sections.append(checks_section(model, adata, checked, output, silent))
    registration = model.registration
    summary = RunSummary(
        title=f"{type(model).__name__} of {registration.n_cells:,} cells",
        subtitle=f"{describe_features(registration)}, {date.today():%d %B %Y}",
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
    """Columns of `adata.obs` for batch and labels, and further ones, by their use in the report.

    Raises
    ------
    UnknownKeyError
        If a requested column does not exist.
    """
    setup = model.registration.keys
    columns = {"batch": batch_key, "labels": labels_key} | {f"key {key}": key for key in keys}
    if cells is None:
        return columns
    for name in columns.values():
        if name is not None and name not in cells.obs:
            raise UnknownKeyError(
                f"adata.obs has no column '{name}'.{did_you_mean(name, list(cells.obs))}"
            )
    for part, name in (("batch", "batch_key"), ("labels", "labels_key")):
        key = getattr(setup, name, None)
        if columns[part] is None and key is not None and key in cells.obs:
            columns[part] = key
    return columns


def sample_cells(
    obs: pd.DataFrame, columns: Mapping[str, str | None], n_cells: int, seed: int
) -> NDArray[np.int64]:
    """Indices of a sample stratified by labels and batches, in random order, [cells].

    Parameters
    ----------
    obs
        Table of all cells.
    columns
        Columns of the report, from :func:`report_columns`.
    n_cells
        Maximum number of cells.
    seed
        Seed of the sample.
    """
    from cellvae.plotting.sampling import stratified_sample

    names = [name for name in (columns["labels"], columns["batch"]) if name is not None]
    strata = [obs[name].to_numpy() for name in dict.fromkeys(names)]
    cells = stratified_sample(len(obs), n_cells, strata, seed=seed)
    return np.random.default_rng(seed).permutation(cells)


def describe_features(registration: Registration) -> str:
    """Number of the features of each axis of a model."""
    return ", ".join(f"{len(axis):,} {axis.name}" for axis in registration.axes.values())


def run_section(model: BaseModel) -> Section:
    """Section on training: why it ended, its curves and last metrics."""
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
    """Section on the options of the model: those that are not the default, then all of them."""
    values = {f.name: str(getattr(model.config, f.name)) for f in fields(model.config)}
    shown = [
        (f.name, values[f.name])
        for f in fields(model.config)
        if f.name in MAIN_OPTIONS or getattr(model.config, f.name) != f.default
    ]
    n_weights = sum(p.numel() for p in model.module.parameters())
    parts = (
        Facts(values=(("weights", f"{n_weights:,}"), *shown)),
        Facts(values=tuple(values.items()), folded="All options"),
    )
    return Section(title="Model", parts=parts)


def data_section(model: BaseModel) -> Section:
    """Section on the data: cells, genes, set-up, split and categories."""
    registration = model.registration
    values = [
        ("cells", f"{registration.n_cells:,}"),
        *((axis.name, f"{len(axis):,}") for axis in registration.axes.values()),
        *((name, str(value)) for name, value in registration.keys.to_json().items()),
    ]
    if model.split is not None:
        sizes = [len(x) for x in (model.split.train, model.split.validation, model.split.test)]
        values.append(("training, validation, test", ", ".join(f"{n:,}" for n in sizes)))
    parts: list[Facts | Grid] = [Facts(values=tuple(values))]
    if registration.modality_cells:
        rows = tuple((name, f"{n:,}") for name, n in registration.modality_cells.items())
        parts.append(Grid(header=("modalities with counts", "cells"), rows=rows))
    if model.adata is not None:
        for key in ("batch_key", "labels_key"):
            name = getattr(registration.keys, key, None)
            if name is not None and name in model.adata.obs:
                parts.append(value_counts(model.adata.obs[name], name))
    return Section(title="Data", parts=tuple(parts))


def value_counts(column: pd.Series, name: str) -> Grid:
    """Number of cells for each value of a column, the most frequent first."""
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
    columns: Mapping[str, str | None],
    seed: int,
    n_cells: int,
) -> Section:
    """Section with a UMAP of the latent space, coloured by each column.

    Parameters
    ----------
    latent, obs
        Latent representation and `obs` of the sampled cells.
    columns
        Columns of the report, from :func:`report_columns`.
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
        # The other sections do not need the UMAP.
        return empty_section("Latent space", f"The UMAP could not be computed: {error}")
    coordinates, cells = layout.coordinates, UMAPResult(layout.coordinates, layout.cells, n_cells)
    names = list(dict.fromkeys(name for name in columns.values() if name is not None))
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
    latent: NDArray[np.float32], obs: pd.DataFrame, columns: Mapping[str, str | None]
) -> Section:
    """Section with integration scores, of all cells and of each label."""
    from cellvae.evaluation import definitions_of, integration_scores

    codes = {
        part: None if name is None or obs[name].nunique() < 2 else obs[name].astype(str).to_numpy()
        for part, name in ((part, columns[part]) for part in ("batch", "labels"))
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
    """Table by label: mean fraction of neighbours with the same label, and mixing of batches."""
    from sklearn.neighbors import NearestNeighbors

    k = min(15, len(latent) - 1)
    neighbours = NearestNeighbors(n_neighbors=k + 1).fit(latent).kneighbors(latent)[1][:, 1:]
    same_label = (labels[neighbours] == labels[:, None]).mean(axis=1)
    rows = []
    for label in pd.Series(labels).value_counts().index:
        in_label = labels == label
        row = [str(label), f"{in_label.sum():,}", f"{same_label[in_label].mean():.2f}"]
        if batch is not None:
            other = (batch[neighbours[in_label]] != batch[in_label][:, None]).mean()
            fractions = pd.Series(batch[in_label]).value_counts(normalize=True)
            expected = 1 - float((fractions**2).sum())
            row.append("" if expected == 0 else f"{other / expected:.2f}")
        rows.append(tuple(row))
    header = (name, "cells", "neighbours alike")
    return Grid(
        header=header if batch is None else (*header, "batches mixed (1: at random)"),
        rows=tuple(rows),
    )

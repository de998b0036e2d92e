"""Report of posterior predictive checks of a model, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from cellvae.core.options import check_arguments
from cellvae.errors import DataMismatchError, InvalidOptionError, did_you_mean
from cellvae.evaluation.ppc_metrics import compare_statistics
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.criticism.checked_output import field_of
from cellvae.inference.criticism.model_card_tables import (
    add_columns,
    card_tables,
    sorted_summary,
    split_positions,
    to_markdown,
)
from cellvae.inference.criticism.posterior_predictive_check import PosteriorPredictiveCheck
from cellvae.inference.criticism.ppc_statistics import RAW_COUNTS_FIELD
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

METRICS = ("calibration", "cv_cell", "cv_gene", "zero_fraction", "diff_exp")
"""Parts of a report."""

DE_P_VALUE = 0.2
"""Adjusted p value below which genes count as differentially expressed, as in scvi-tools."""
TITLES = {
    "cv_gene": "Coefficient of variation of {features}",
    "cv_cell": "Coefficient of variation of cells",
    "zero_fraction": "Fraction of zeros of {features}",
}
"""Titles of the parts that compare a statistic."""
REPORT_FILE = "criticism_report.md"
TABLES_FILE = "metrics.json"
"""File with the tables of a model card, named as by scvi-tools."""
FIGURE_FILE = "criticism_report.png"


@check_arguments(only=INTEGERS)
def create_criticism_report(
    model: DecoderModel,
    adata: AnnData | None = None,
    skip_metrics: Collection[str] = (),
    n_samples: int = 5,
    label_key: str | None = None,
    save_folder: str | Path | None = None,
    *,
    output: str | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    silent: bool = False,
) -> str:
    """Report of posterior predictive checks: drawn counts compared with measured ones.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    skip_metrics
        Parts to leave out, of `"calibration"`, `"cv_cell"`, `"cv_gene"`, `"zero_fraction"` and
        `"diff_exp"`.
    n_samples
        Number of draws for each cell.
    label_key
        Column of `adata.obs` with the groups for differential expression; None for the labels of
        the setup, or without labels for Leiden clusters of the counts.
    save_folder
        Folder, created if needed, for the report (`criticism_report.md`), its figure
        (`criticism_report.png`) and the tables of scvi-tools' model cards (`metrics.json`).
    output
        Output that is checked, of a model of several: `"rna"`, `"accessibility"` or `"protein"`;
        None for the first.
    indices
        Cells to use, by index, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    Report in Markdown.

    Notes
    -----
    As in scvi-tools, columns are added to the cells, for the parts that are not left out:
    `cv_gene_ratio` in `adata.var` and `cv_cell_ratio` in `adata.obs` (drawn / (drawn + measured)
    variation, 0.5 where they agree), and the log2 fold changes of each group in
    `adata.varm["lfc_model"]` and `adata.varm["lfc_raw"]`. A view of cells is not changed. Names for
    another output than the first end in `_` and its name; features of a MuData are those of the
    modality, and proteins in `obsm` get no columns.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    InvalidOptionError
        If a part does not exist.
    DataMismatchError
        If genes or categories of `adata` are not those of the model, or there are no cells.
    """
    unknown = [name for name in skip_metrics if name not in METRICS]
    if unknown:
        raise InvalidOptionError(
            f"Expected skip_metrics to be some of {', '.join(METRICS)}; got '{unknown[0]}'."
            f"{did_you_mean(str(unknown[0]), METRICS)}"
        )
    model.rows_for(adata)
    cells = model.adata if adata is None else adata
    if cells is None:
        raise DataMismatchError("The model was loaded without cells. Give adata.")
    name = type(model).__name__
    check = PosteriorPredictiveCheck(
        cells,
        {name: model},
        n_samples=n_samples,
        output=output,
        indices=indices,
        batch_size=batch_size,
        silent=silent,
    )
    if label_key is None:
        labels_key = getattr(model.registration.keys, "labels_key", None)
        label_key = labels_key if labels_key in cells.obs else None
    features = str(field_of(model, check.output.name).axis)
    lines = [
        f"# Posterior predictive checks of {name}",
        "",
        f"{len(check.cells):,} cells, {len(check.genes):,} {features}, {n_samples} draws for each "
        "cell.",
    ]
    for part in METRICS:
        if part in skip_metrics:
            continue
        lines += report_section(check, part, name, label_key, features)
    text = "\n".join(lines) + "\n"
    if not cells.is_view:
        add_columns(check, model, cells, name)
    if save_folder is not None:
        folder = Path(save_folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")
        parts = split_positions(model, check) if adata is None or adata is model.adata else {}
        tables = card_tables(check, name, parts)
        (folder / TABLES_FILE).write_text(json.dumps(tables, indent=4), encoding="utf-8")
        save_figure(check, name, folder / FIGURE_FILE, features)
    return text


def report_section(
    check: PosteriorPredictiveCheck, part: str, name: str, label_key: str | None, features: str
) -> list[str]:
    """Lines of one part of the report; `features` are what is drawn, such as genes."""
    import pandas as pd

    if part == "calibration":
        mean_error = check.calibration_error(randomized=True)[name]
        return [
            "",
            "## Calibration",
            "",
            "Fraction of the measured counts within central intervals of the model (ideally the "
            f"level itself); mean squared difference {mean_error:.4g}. Sum of squared differences "
            f"as in scvi-tools, with ties inside: {check.calibration_error()[name]:.4g}.",
            "",
            *to_markdown(check.calibration([0.1, 0.25, 0.5, 0.75, 0.9]).reset_index()),
        ]
    if part == "diff_exp":
        groups = "Leiden clusters" if label_key is None else label_key
        title = ["", f"## Differential expression by {groups}", ""]
        try:
            table = check.differential_expression(label_key, p_val_thresh=DE_P_VALUE)
        except InvalidOptionError as error:
            if label_key is not None:
                raise
            return [*title, f"Left out. {error}"]
        return [
            *title,
            f"{features.capitalize()} that differ between a group and all other cells in measured "
            "counts, and in drawn ones.",
            "",
            *to_markdown(sorted_summary(table)),
        ]
    tables = {
        "cv_gene": check.coefficient_of_variation,
        "cv_cell": lambda: check.coefficient_of_variation("features"),
        "zero_fraction": check.zero_fraction,
    }
    table = tables[part]()
    scores = compare_statistics(table[RAW_COUNTS_FIELD].to_numpy(), table[name].to_numpy())
    means = {"measured (mean)": table[RAW_COUNTS_FIELD].mean(), "drawn (mean)": table[name].mean()}
    heading = TITLES[part].format(features=features)
    return ["", f"## {heading}", "", *to_markdown(pd.DataFrame([means | scores]))]


def save_figure(check: PosteriorPredictiveCheck, name: str, path: Path, features: str) -> None:
    """Write a figure with a panel for each result of a check."""
    import matplotlib.pyplot as plt

    from cellvae.plotting import calibration_curve, ppc_scatter

    shown = [part for part in ("calibration", *TITLES) if part in check.metrics]
    if not shown:
        return
    figure, axes = plt.subplots(
        1, len(shown), figsize=(4 * len(shown), 3.8), layout="constrained", squeeze=False
    )
    for part, ax in zip(shown, axes.flat, strict=True):
        if part == "calibration":
            table = check.calibration()
            calibration_curve(table.index.to_numpy(), table[name].to_numpy(), ax, label=name)
        else:
            table = check.metrics[part]
            title = TITLES[part].format(features=features)
            ppc_scatter(table[RAW_COUNTS_FIELD].to_numpy(), table[name].to_numpy(), ax, title=title)
    figure.savefig(path, dpi=150)
    plt.close(figure)

"""Results of posterior predictive checks as tables of model cards and as columns of AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellvae.evaluation.ppc_metrics import compare_statistics
from cellvae.inference.criticism.checked_output import field_of
from cellvae.inference.criticism.posterior_predictive_check import PosteriorPredictiveCheck
from cellvae.inference.criticism.ppc_statistics import RAW_COUNTS_FIELD
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

AGREEMENT_COLUMNS = {
    "mean_absolute_error": "Mean Absolute Error",
    "pearson": "Pearson Correlation",
    "spearman": "Spearman Correlation",
    "r2": "R² (R-Squared)",
}
"""Scores of agreement, with their names in model cards."""


def sorted_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of the groups of one model, in descending order of their size."""
    ordered = table.sort_values("n_cells", ascending=False, kind="stable")
    return ordered[["group", *(c for c in ordered.columns if c not in ("group", "model"))]]


def split_positions(
    model: DecoderModel, check: PosteriorPredictiveCheck
) -> dict[str, NDArray[np.bool_]]:
    """Masks of training and validation cells among those of a check; none if one is empty."""
    split = getattr(model, "split", None)
    if split is None:
        return {}
    cells = check.cells.numpy()
    parts = {
        "Training": np.isin(cells, split.train),
        "Validation": np.isin(cells, split.validation),
    }
    return parts if all(mask.any() for mask in parts.values()) else {}


def card_tables(
    check: PosteriorPredictiveCheck, name: str, parts: Mapping[str, NDArray[np.bool_]]
) -> dict[str, str]:
    """Tables of scvi-tools' model cards in Markdown, by name; empty for a part that was left out.

    The variation of cells is compared in training and in validation cells, if there are both.
    """
    tables = {"cell_wise_cv": "", "gene_wise_cv": "", "diff_exp": ""}
    for title, part, masks in (
        ("cell_wise_cv", "cv_cell", parts),
        ("gene_wise_cv", "cv_gene", {}),
    ):
        if part in check.metrics:
            tables[title] = "\n".join(
                to_markdown(agreement_table(check.metrics[part], name, masks))
            )
    if "diff_exp" in check.metrics:
        tables["diff_exp"] = "\n".join(
            to_markdown(sorted_summary(check.metrics["diff_exp"]["summary"]))
        )
    return tables


def agreement_table(
    table: pd.DataFrame, name: str, parts: Mapping[str, NDArray[np.bool_]]
) -> pd.DataFrame:
    """Agreement of the measured and the drawn statistic, for each part of the cells."""
    import pandas as pd

    masks = parts or {"Training": np.ones(len(table), dtype=bool)}
    measured, drawn = table[RAW_COUNTS_FIELD].to_numpy(), table[name].to_numpy()
    scores = {part: compare_statistics(measured[mask], drawn[mask]) for part, mask in masks.items()}
    columns = {
        f"{part} Value": [values[metric] for metric in AGREEMENT_COLUMNS]
        for part, values in scores.items()
    }
    return pd.DataFrame({"Metric": [*AGREEMENT_COLUMNS.values()], **columns})


def add_columns(
    check: PosteriorPredictiveCheck, model: DecoderModel, adata: AnnData, name: str
) -> None:
    """Add the results of a check as columns of cells and features, as scvi-tools does.

    Names for another output than the first end in its name. Features that are no variables of an
    AnnData, as proteins in `obsm`, get none.
    """
    import pandas as pd

    output = check.output.name
    suffix = "" if output == model.module.outputs[0] else f"_{output}"
    table = table_of_features(model, adata, output)
    if "cv_cell" in check.metrics:
        values = np.full(adata.n_obs, np.nan)
        values[check.cells.numpy()] = variation_ratio(check.metrics["cv_cell"], name)
        adata.obs[f"cv_cell_ratio{suffix}"] = values
    if table is None:
        return
    if "cv_gene" in check.metrics:
        found = check.metrics["cv_gene"]
        values = np.full(table.n_vars, np.nan)
        values[table.var_names.get_indexer(found.index)] = variation_ratio(found, name)
        table.var[f"cv_gene_ratio{suffix}"] = values
    if "diff_exp" not in check.metrics:
        return
    by_group = check.metrics["diff_exp"]["lfc_per_model_per_group"][name]
    for column, key in (("approx", "lfc_model"), ("raw", "lfc_raw")):
        changes = {group: of_group[column] for group, of_group in by_group.items()}
        table.varm[f"{key}{suffix}"] = pd.DataFrame(changes).reindex(table.var_names)


def variation_ratio(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Drawn variation as a fraction of the sum of drawn and measured variation."""
    ratio: NDArray[np.float64] = (table[name] / (table[name] + table[RAW_COUNTS_FIELD])).to_numpy()
    return ratio


def table_of_features(model: DecoderModel, adata: Any, output: str) -> AnnData | None:
    """AnnData whose variables are the features of an output; None for those in `obsm`."""
    field = field_of(model, output)
    if not field.has_variables:
        return None
    table: AnnData = adata if field.modality is None else adata.mod[field.modality]
    return table


def to_markdown(table: pd.DataFrame) -> list[str]:
    """Lines of a table in Markdown, numbers with four significant digits."""
    rows = [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row]
        for row in table.itertuples(index=False)
    ]
    head = [str(column) for column in table.columns]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]

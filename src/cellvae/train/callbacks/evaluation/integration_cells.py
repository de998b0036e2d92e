"""Cells that integration is evaluated on: their batches and labels, and who is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.errors import InvalidDataError, InvalidOptionError, quote_names
from cellvae.evaluation.inputs import category_codes, check_several
from cellvae.evaluation.integration.integration_scores import REQUIRED_COLUMNS
from cellvae.train.callbacks.evaluation.cell_selection import CellSelection, subsample
from cellvae.train.loop.training_plan import TrainingPlan

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class IntegrationKeys:
    """Columns of batch and label, what is made of them, and the batches that are a reference."""

    batch: str | None
    labels: str | None
    metrics: Sequence[str]
    reference: str | Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegrationCells:
    """Cells with the numbers of their batch and label.

    `train` and `test` are positions of the cells that labels are taken from, and of those they are
    predicted for; None for all.
    """

    cells: CellSelection
    batch: Positions | None
    labels: Positions | None
    train: Positions | None
    test: Positions | None


def integration_cells(
    plan: TrainingPlan,
    cells: CellSelection,
    keys: IntegrationKeys,
    *,
    k: int,
    n_cells: int | None,
    seed: int,
) -> IntegrationCells:
    """Cells that have all that is needed, or some of them if there are many.

    Raises
    ------
    InvalidOptionError, InvalidDataError
        If there are too few cells, batches or labels for the metrics.
    """
    columns = {
        what: cells.column(key)
        for what, key in (("batch", keys.batch), ("labels", keys.labels))
        if key is not None
    }
    complete = np.flatnonzero(~np.any([pd.isna(c) for c in columns.values()], axis=0))
    sampled = subsample(complete, n_cells, seed)
    if len(sampled) <= k:
        raise InvalidDataError(
            f"Expected more than k={k} cells with batch and label to evaluate; got "
            f"{len(sampled):,} of {len(cells.indices):,}. Choose others, or a smaller k."
        )
    columns = {what: column[sampled] for what, column in columns.items()}
    codes = {what: category_codes(column, len(sampled), what) for what, column in columns.items()}
    for what, of_what in codes.items():
        if any(what in REQUIRED_COLUMNS[name] for name in keys.metrics):
            check_several(of_what, what)
    check_overlap(codes, keys)
    chosen = cells.select(sampled)
    train, test = transfer_parts(plan, chosen, columns.get("batch"), keys, k)
    return IntegrationCells(
        cells=chosen, batch=codes.get("batch"), labels=codes.get("labels"), train=train, test=test
    )


def check_overlap(codes: Mapping[str, Positions], keys: IntegrationKeys) -> None:
    """Check that the silhouette of batches within labels says something.

    Raises
    ------
    InvalidDataError
        If no label has batches to compare.
    """
    requested = [name for name in ("asw_batch", "bras") if name in keys.metrics]
    if not requested or len(codes) < 2:
        return
    by_label = pd.DataFrame(codes).groupby("labels")["batch"]
    n_batches, n_cells = by_label.nunique(), by_label.size()
    if not ((n_batches > 1) & (n_batches < n_cells)).any():
        raise InvalidDataError(
            f"Expected a label of '{keys.labels}' with cells of two or more values of "
            f"'{keys.batch}' for {quote_names(requested)}; got none. Leave it out: metrics=[...]."
        )


def transfer_parts(
    plan: TrainingPlan,
    cells: CellSelection,
    batch: NDArray[np.object_] | None,
    keys: IntegrationKeys,
    k: int,
) -> tuple[Positions | None, Positions | None]:
    """Cells that labels are taken from, and those they are predicted for; None for all."""
    if not {"knn_label_accuracy", "knn_label_f1"} & set(keys.metrics):
        return None, None
    if keys.reference is not None:
        assert batch is not None
        is_source = is_reference(batch, keys)
        if is_source.sum() < k or is_source.all():
            raise InvalidDataError(
                f"Expected k={k} cells or more of the reference and one or more of other batches; "
                f"got {is_source.sum():,} and {(~is_source).sum():,}."
            )
        return np.flatnonzero(is_source), np.flatnonzero(~is_source)
    if cells.adata is not None or plan.split is None:
        return None, None
    is_source = np.isin(cells.indices, plan.split.train)
    is_scored = np.isin(cells.indices, plan.split.validation)
    if is_source.sum() < k or not is_scored.any():
        return None, None
    return np.flatnonzero(is_source), np.flatnonzero(is_scored)


def is_reference(batch: NDArray[np.object_], keys: IntegrationKeys) -> NDArray[np.bool_]:
    """Whether each cell is of a batch of the reference.

    Raises
    ------
    InvalidOptionError
        If a batch of the reference is none of the cells'.
    """
    assert keys.reference is not None
    wanted = [keys.reference] if isinstance(keys.reference, str) else [*map(str, keys.reference)]
    values = batch.astype(str)
    absent = [name for name in wanted if name not in values]
    if absent:
        raise InvalidOptionError(
            f"Expected reference to name values of '{keys.batch}'; got {quote_names(absent)}."
            f" There are {quote_names(np.unique(values).tolist())}."
        )
    return np.isin(values, wanted)

"""Early stopping of models that stop early by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellvae.core.log import warn
from cellvae.core.selection import flatten_selection
from cellvae.errors import TrainingWarning


def default_early_stopping(words: Mapping[str, Any], patience: int) -> dict[str, Any]:
    """Words of `train` that stop a run early, unless the user spoke of it or no cells are left.

    Without validation cells early stopping is off, and one warning says so.
    """
    if words.get("early_stopping") is not None or is_set_elsewhere(words):
        return {}
    if has_validation_cells(words):
        return {"early_stopping": True, "early_stopping_patience": patience}
    warn(
        "Training will not stop early, as this model does by default: there are no validation "
        "cells. Leave some with train_size, or give early_stopping=False to silence this.",
        TrainingWarning,
    )
    return {}


def is_set_elsewhere(words: Mapping[str, Any]) -> bool:
    """Whether early stopping is set in a place that is looked at later."""
    config = words.get("trainer_config")
    return isinstance(config, Mapping) and config.get("early_stopping") is not None


def has_validation_cells(words: Mapping[str, Any]) -> bool:
    """Whether a split leaves cells for validation."""
    external = (words.get("datasplitter_kwargs") or {}).get("external_indexing")
    if external is not None:
        return len(external) > 1 and selects_cells(external[1])
    if words.get("validation_size") is not None:
        return bool(words["validation_size"] > 0)
    return words.get("train_size") is None or bool(words["train_size"] < 1)


def selects_cells(selection: Any) -> bool:
    """Whether a selection of cells is not empty."""
    if selection is None or isinstance(selection, slice):
        return selection is not None
    values = flatten_selection(selection)
    return bool(values.any() if values.dtype == bool else len(values))

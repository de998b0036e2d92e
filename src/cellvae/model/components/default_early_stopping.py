"""Early stopping of models that stop early by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellvae.core.log import warn
from cellvae.core.selection import flatten_selection
from cellvae.errors import TrainingWarning


def default_early_stopping(kwargs: Mapping[str, Any], patience: int) -> dict[str, Any]:
    """Defaults of `train` that stop a run early, unless the user set early stopping.

    Without validation cells there is no early stopping, and a warning says so.
    """
    if kwargs.get("early_stopping") is not None or is_set_elsewhere(kwargs):
        return {}
    if has_validation_cells(kwargs):
        return {"early_stopping": True, "early_stopping_patience": patience}
    warn(
        "Training will not stop early, as this model does by default: there are no validation "
        "cells. Leave some with train_size, or give early_stopping=False to silence this.",
        TrainingWarning,
    )
    return {}


def is_set_elsewhere(kwargs: Mapping[str, Any]) -> bool:
    """Whether early stopping is set in `trainer_config`."""
    config = kwargs.get("trainer_config")
    return isinstance(config, Mapping) and config.get("early_stopping") is not None


def has_validation_cells(kwargs: Mapping[str, Any]) -> bool:
    """Whether the requested split has validation cells."""
    split = kwargs.get("datasplitter_kwargs") or {}
    external = split.get("external_indexing", kwargs.get("external_indexing"))
    if external is not None:
        return len(external) > 1 and selects_cells(external[1])
    if kwargs.get("validation_size") is not None:
        return bool(kwargs["validation_size"] > 0)
    return kwargs.get("train_size") is None or bool(kwargs["train_size"] < 1)


def selects_cells(selection: Any) -> bool:
    """Whether a selection has at least one cell."""
    if selection is None or isinstance(selection, slice):
        return selection is not None
    values = flatten_selection(selection)
    return bool(values.any() if values.dtype == bool else len(values))

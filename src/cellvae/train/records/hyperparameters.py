"""Hyperparameters of a run, as an experiment tracker gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_LENGTH = 250
"""Maximum length of a value as text; trackers limit it."""
OMITTED_OPTIONS = ("progress", "trainer", "disabled_callbacks")


def run_hyperparameters(
    identity: Mapping[str, Any], config: Mapping[str, Any], *, n_cells: int
) -> dict[str, Any]:
    """Model, its options and those of the run, without what is unset or long.

    Parameters
    ----------
    identity
        Model and data of the run, as plain values.
    config
        Options of the run, as plain values.
    n_cells
        Number of cells, of training and validation.
    """
    options = {name: value for name, value in config.items() if name not in OMITTED_OPTIONS}
    given = {
        "model": identity.get("model"),
        "n_cells": n_cells,
        "n_features": len(identity.get("genes", ())) or None,
        "config": identity.get("config", {}),
        "train": options,
    }
    return without_unset(given)


def without_unset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are set and short, in nested dictionaries too."""
    short_values: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            if inner := without_unset(value):
                short_values[name] = inner
        elif value is not None and len(str(value)) <= MAX_LENGTH:
            short_values[name] = value
    return short_values

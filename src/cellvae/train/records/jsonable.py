"""Values of any kind as JSON can hold them, and back."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

# Key that marks an array; no user has it by chance.
ARRAY = "__array__"
UNSERIALIZABLE = object()
"""What stands for a value that JSON cannot hold."""


def to_number(value: Any) -> float | None:
    """Value as a number; None if it is none."""
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        return float(value)
    return None


def to_plain(value: Any) -> Any:
    """Value as JSON can hold it, `UNKNOWN` if it cannot; arrays are marked, with type and shape."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            return UNSERIALIZABLE
        return {ARRAY: value.ravel().tolist(), "type": value.dtype.name, "shape": [*value.shape]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return collect_plain({str(k): to_plain(v) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return collect_plain([to_plain(v) for v in value])
    return value if value is None or type(value) in (bool, int, float, str) else UNSERIALIZABLE


def collect_plain(values: Any) -> Any:
    """A collection, or `UNKNOWN` if one of its values is."""
    parts = values.values() if isinstance(values, dict) else values
    return UNSERIALIZABLE if any(part is UNSERIALIZABLE for part in parts) else values


def from_plain(value: Any) -> Any:
    """Value from JSON; what is marked becomes an array again."""
    if isinstance(value, dict):
        if ARRAY in value:
            return np.array(value[ARRAY], dtype=value["type"]).reshape(value["shape"])
        return {k: from_plain(v) for k, v in value.items()}
    return [from_plain(v) for v in value] if isinstance(value, list) else value

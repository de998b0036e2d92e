"""JSON of a history: writing its values, and checking those of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cellvae.errors import FileFormatError
from cellvae.train.records.jsonable import OMITTED, decode_arrays, encode_arrays


class HistoryValues(NamedTuple):
    """Checked values of a history."""

    epochs: list[int]
    rows: list[dict[str, float]]
    runs: list[int]
    names: list[str]
    objects: dict[str, dict[int, Any]]
    notes: dict[str, Any]


def encode_history(values: HistoryValues) -> dict[str, Any]:
    """Values of a history for a file; what JSON cannot hold is left out."""
    objects = {
        name: {
            str(epoch): encoded
            for epoch, value in by_epoch.items()
            if (encoded := encode_arrays(value)) is not OMITTED
        }
        for name, by_epoch in values.objects.items()
    }
    notes = {name: encode_arrays(value) for name, value in values.notes.items()}
    return {
        "epochs": list(values.epochs),
        "metrics": {name: [row.get(name) for row in values.rows] for name in values.names},
        "runs": list(values.runs),
        "objects": {name: by_epoch for name, by_epoch in objects.items() if by_epoch},
        "notes": {name: value for name, value in notes.items() if value is not OMITTED},
    }


def decode_history(values: Mapping[str, Any]) -> HistoryValues:
    """Values of a history from those of a file.

    Raises
    ------
    FileFormatError
        If they are not those of a history.
    """
    epochs, metrics = values.get("epochs"), values.get("metrics")
    # Files of the first version have no more than these two.
    runs = values.get("runs", [0] * len(epochs) if isinstance(epochs, list) else [])
    objects, notes = values.get("objects", {}), values.get("notes", {})
    if not isinstance(epochs, list) or not isinstance(metrics, dict):
        raise FileFormatError("Expected a history to have 'epochs' and 'metrics'.")
    if any(not isinstance(c, list) or len(c) != len(epochs) for c in metrics.values()):
        raise FileFormatError(f"Expected {len(epochs)} values of each metric of the history.")
    if not isinstance(runs, list) or len(runs) != len(epochs):
        raise FileFormatError(f"Expected the run of each of the {len(epochs)} epochs.")
    if not isinstance(objects, dict) or not isinstance(notes, dict):
        raise FileFormatError("Expected 'objects' and 'notes' of a history to be objects.")
    try:
        decoded = HistoryValues(
            epochs=[int(epoch) for epoch in epochs],
            rows=[
                {k: float(c[i]) for k, c in metrics.items() if c[i] is not None}
                for i in range(len(epochs))
            ],
            runs=[int(run) for run in runs],
            names=list(metrics),
            objects={
                str(name): {int(epoch): decode_arrays(v) for epoch, v in by_epoch.items()}
                for name, by_epoch in objects.items()
            },
            notes={str(name): decode_arrays(value) for name, value in notes.items()},
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"Expected numbers in the history: {error}") from error
    if decoded.epochs != sorted(set(decoded.epochs)):
        raise FileFormatError("Expected the epochs of the history to go up, each once.")
    return decoded

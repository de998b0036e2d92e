"""Options of a job and the files it has written, recorded in `job.json` beside its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellvae.cli.flags import flag_of_option
from cellvae.core.atomic_write import replace_atomically
from cellvae.errors import FileFormatError, InvalidOptionError
from cellvae.version import __version__

if TYPE_CHECKING:
    from anndata import AnnData

JOB_FILE = "job.json"
FORMAT = 1
CELLS_PER_PART = 4096
OPTIONS_THAT_MAY_DIFFER = (
    "accelerator",
    "devices",
    "placement",
    "steps_per_block",
    "capture_steps",
    "on_interrupt",
    "enable_progress_bar",
    "progress_bar_refresh_rate",
    "simple_progress_bar",
)
"""Words of `train` that may differ when a job is continued."""


@dataclass
class JobRecord:
    """Options and data of a job, and the results that it has written.

    Parameters
    ----------
    out
        Folder of the results.
    options
        Model, seed, and keywords of set-up, model and training.
    data
        Digests of what the model reads of the cells.
    written
        Results that are complete, with what was special about each.
    """

    out: Path
    options: dict[str, Any]
    data: dict[str, Any]
    written: dict[str, Any] = field(default_factory=dict)

    def has(self, name: str, details: Any = None) -> bool:
        """Whether a result is complete and still there, written with the same details."""
        return (
            name in self.written
            and self.written[name] == through_json(details)
            and (self.out / name).exists()
        )

    def add(self, name: str, details: Any = None) -> None:
        """Note that a result is complete."""
        self.written[name] = through_json(details)
        self.save()

    def save(self) -> None:
        """Write the record; an older one stays until the new one is whole."""
        values = {
            "format": FORMAT,
            "cellvae": __version__,
            "options": self.options,
            "data": self.data,
            "written": self.written,
        }
        text = json.dumps(values, indent=2) + "\n"
        with replace_atomically(self.out / JOB_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def check_same(self, earlier: JobRecord) -> None:
        """Check that a job can be continued by this one.

        Raises
        ------
        InvalidOptionError
            If options or data differ, naming the first difference.
        """
        difference = first_difference(earlier.options, self.options)
        if difference is None:
            changed = [name for name, value in self.data.items() if earlier.data.get(name) != value]
            if not changed:
                return
            difference = f"the {changed[0]} of the file are others now"
        raise InvalidOptionError(
            f"'{self.out}' holds the results of another job: {difference}. Give the options and "
            "data of that job to finish it, --overwrite to start again, or another --out."
        )


def first_difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """First option in which two jobs differ, in words; None if there is none."""
    before, after = flatten_options(earlier), flatten_options(now)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            old, new = (
                f"{flag_of_option(name)} {words[name]}"
                if name in words
                else f"no {flag_of_option(name)}"
                for words in (before, after)
            )
            return f"it had {old}, now there is {new}"
    return None


def flatten_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of all calls in one dictionary, without those that may differ."""
    words: dict[str, Any] = {}
    for name, value in options.items():
        words |= flatten_options(value) if name in NESTED else {name: value}
    return {name: value for name, value in words.items() if name not in OPTIONS_THAT_MAY_DIFFER}


NESTED = ("setup", "config", "train", "plan_kwargs", "datasplitter_kwargs")
"""Entries of the options that are dictionaries of keywords."""


def read_record(out: Path) -> JobRecord | None:
    """Record of the job that wrote into a folder; None if there is none.

    Raises
    ------
    FileFormatError
        If it cannot be understood.
    """
    path = out / JOB_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}, not {FORMAT}")
        return JobRecord(out, *(dict(values[name]) for name in ("options", "data", "written")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"Expected '{path}' to be the record of a job; it cannot be read: {error}. Give "
            "--overwrite to start again, or another --out."
        ) from error


def describe_data(adata: AnnData, setup: Mapping[str, Any]) -> dict[str, str]:
    """Digests of what a model reads of the cells, the same however the counts are stored.

    Parameters
    ----------
    adata
        The cells.
    setup
        Keywords of `setup_anndata`.
    """
    layer = setup.get("layer")
    digests = {
        "genes": text_digest(adata.var_names),
        "cells": text_digest(adata.obs_names),
        "counts": counts_digest(adata.X if layer is None else adata.layers[layer]),
    }
    for name, columns in setup.items():
        if name.endswith(("_key", "_keys")):
            for column in [columns] if isinstance(columns, str) else columns:
                digests[f"values of obs['{column}']"] = text_digest(adata.obs[column])
    return digests


def counts_digest(counts: Any) -> str:
    """Digest of sums over cells, over genes, and over genes that count differently.

    Sums of whole numbers are exact in double precision, so neither the type nor the order in which
    they are stored matters.
    """
    weights = np.arange(1, counts.shape[1] + 1, dtype=np.float64)
    sums = [counts.sum(axis=0, dtype=np.float64), counts.sum(axis=1, dtype=np.float64)]
    # A product of a dense matrix takes a copy in double precision: some cells at a time.
    n_rows = CELLS_PER_PART if isinstance(counts, np.ndarray) else max(1, counts.shape[0])
    sums += [counts[i : i + n_rows] @ weights for i in range(0, counts.shape[0], n_rows)]
    return digest(b"".join(np.asarray(values, dtype=np.float64).tobytes() for values in sums))


def text_digest(values: Any) -> str:
    """Digest of values as strings."""
    return digest("\n".join(map(str, values)).encode())


def digest(content: bytes) -> str:
    """Digest of bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def through_json(value: Any) -> Any:
    """Value as it comes back from JSON."""
    return json.loads(json.dumps(value))

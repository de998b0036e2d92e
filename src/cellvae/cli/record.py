"""Record of a job in `job.json`: its options, its data, and the results that it has written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellvae.cli.flags import flag_of_option
from cellvae.core.files.output_files import replace_atomically
from cellvae.core.platform.launcher import process_rank
from cellvae.errors import FileFormatError, InvalidOptionError
from cellvae.version import __version__

JOB_FILE = "job.json"
JOB_FORMAT = 1
OPTIONS_THAT_MAY_DIFFER = (
    "accelerator",
    "devices",
    "num_nodes",
    "sync_batchnorm",
    "placement",
    "steps_per_block",
    "capture_steps",
    "on_interrupt",
    "enable_progress_bar",
    "progress_bar_refresh_rate",
    "simple_progress_bar",
)
"""Keyword arguments of `train` that may differ when a job is resumed."""


@dataclass
class JobRecord:
    """Options and data of a job, and the results that it has written.

    Parameters
    ----------
    out
        Folder of the results.
    options
        Model, seed, and keyword arguments of setup, model and training.
    data
        Digests of the parts of the data that the model reads.
    written
        Complete results, with the details that each was written with.
    """

    out: Path
    options: dict[str, Any]
    data: dict[str, Any]
    written: dict[str, Any] = field(default_factory=dict)

    def has(self, name: str, details: Any = None) -> bool:
        """Whether a result is complete, exists, and was written with the same details."""
        return (
            name in self.written
            and self.written[name] == through_json(details)
            and (self.out / name).exists()
        )

    def add(self, name: str, details: Any = None) -> None:
        """Record that a result is complete."""
        self.written[name] = through_json(details)
        self.save()

    def save(self) -> None:
        """Write the record atomically, from the first of several processes."""
        if process_rank() > 0:
            return
        values = {
            "format": JOB_FORMAT,
            "cellvae": __version__,
            "options": self.options,
            "data": self.data,
            "written": self.written,
        }
        text = json.dumps(values, indent=2) + "\n"
        with replace_atomically(self.out / JOB_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def check_same(self, earlier: JobRecord) -> None:
        """Check that this job can resume an earlier one.

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
            difference = f"the {changed[0]} of the file have changed"
        raise InvalidOptionError(
            f"'{self.out}' contains the results of another job: {difference}. Give the options and "
            "data of that job to finish it, --overwrite to start again, or another --out."
        )


def first_difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Description of the first option in which two jobs differ; None if there is none."""
    before, after = flatten_options(earlier), flatten_options(now)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            old, new = (
                f"{flag_of_option(name)} {options[name]}"
                if name in options
                else f"no {flag_of_option(name)}"
                for options in (before, after)
            )
            return f"it had {old}, now there is {new}"
    return None


def flatten_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of all calls in one dictionary, without those that may differ."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= flatten_options(value) if name in NESTED else {name: value}
    return {name: value for name, value in flat.items() if name not in OPTIONS_THAT_MAY_DIFFER}


NESTED = ("setup", "config", "train", "plan_kwargs", "datasplitter_kwargs")
"""Options that are dictionaries of keyword arguments."""


def read_record(out: Path) -> JobRecord | None:
    """Record of the job that wrote into a folder; None if there is none.

    Raises
    ------
    FileFormatError
        If it is not valid.
    """
    path = out / JOB_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != JOB_FORMAT:
            raise ValueError(f"its format is {values['format']!r}, not {JOB_FORMAT}")
        return JobRecord(out, *(dict(values[name]) for name in ("options", "data", "written")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"Expected '{path}' to be the record of a job; it cannot be read: {error}. Give "
            "--overwrite to start again, or another --out."
        ) from error


def through_json(value: Any) -> Any:
    """Value after a round trip through JSON."""
    return json.loads(json.dumps(value))

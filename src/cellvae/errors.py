"""Every exception of the package, and the "did you mean" text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "CellvaeError",
    "CellvaeWarning",
    "DataMismatchError",
    "DataWarning",
    "DownloadError",
    "FileFormatError",
    "InvalidDataError",
    "InvalidOptionError",
    "NotSetUpError",
    "NotTrainedError",
    "ResumeError",
    "StopTraining",
    "TrainingError",
    "TrainingWarning",
    "UnknownKeyError",
    "UnknownOptionError",
    "UnsafeFileError",
]


class CellvaeError(Exception):
    """Any error that the package raises on purpose."""


class UnknownOptionError(CellvaeError, TypeError):
    """A keyword that the called function does not have."""


class InvalidOptionError(CellvaeError, ValueError):
    """A keyword with a value that it cannot take."""


class UnknownKeyError(CellvaeError, KeyError):
    """A name of a column or layer that the AnnData does not have."""

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidDataError(CellvaeError, ValueError):
    """Values in the AnnData that no model can be trained on."""


class DataMismatchError(CellvaeError, ValueError):
    """Data that differ from the data a model was made for."""


class NotSetUpError(CellvaeError, ValueError):
    """An AnnData that `setup_anndata` has not seen."""


class NotTrainedError(CellvaeError, RuntimeError):
    """A question asked of a model that has not been trained."""


class TrainingError(CellvaeError, RuntimeError):
    """A training run that cannot go on."""


class ResumeError(CellvaeError, ValueError):
    """A run that cannot go on with the model, data or options that were given."""


class StopTraining(CellvaeError):
    """Raised in a callback to end a run in good order: `raise StopTraining("why")`.

    All callbacks finish the hook, the hooks of the end run, and `train` returns.
    """


class FileFormatError(CellvaeError, ValueError):
    """A model file that is damaged, incomplete, or of an unknown version."""


class UnsafeFileError(FileFormatError):
    """A model file that asks for more than reading values: code, other paths, huge memory."""


class DownloadError(CellvaeError, OSError):
    """A file of a data set that cannot be downloaded, or has not the content that it should."""


class CellvaeWarning(UserWarning):
    """Any warning of the package."""


class DataWarning(CellvaeWarning):
    """Data that can be used but are probably not what was meant."""


class TrainingWarning(CellvaeWarning):
    """A training run that will not do what was probably meant."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Sentence naming the known word closest to a mistyped one, empty if none is close."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean '{lowered[close[0]]}'?" if close else ""


def quote_names(values: Sequence[object], most: int = 5) -> str:
    """Values quoted in a row for a message, cut after `most` of them."""
    shown = ", ".join(repr(str(value)) for value in values[:most])
    left = len(values) - most
    return f"{shown} and {left:,} more" if left > 0 else shown


def count_noun(n: int, what: str) -> str:
    """How many of something: "1 other", "2 others"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def __dir__() -> list[str]:
    return sorted(__all__)

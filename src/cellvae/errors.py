"""Exceptions and warnings of the package, and parts of their messages."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence

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
    "OutputError",
    "ProcessError",
    "ResumeError",
    "StopTraining",
    "TrainingError",
    "TrainingWarning",
    "UnknownKeyError",
    "UnknownOptionError",
    "UnsafeFileError",
]


class CellvaeError(Exception):
    """Base class of all errors of the package."""


class UnknownOptionError(CellvaeError, TypeError):
    """A keyword argument that the called function does not have."""


class InvalidOptionError(CellvaeError, ValueError):
    """An argument with an invalid value."""


class UnknownKeyError(CellvaeError, KeyError):
    """A name of a column or layer that the AnnData does not have."""

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidDataError(CellvaeError, ValueError):
    """Values in the AnnData that a model cannot be trained on."""


class DataMismatchError(CellvaeError, ValueError):
    """Data that do not match the data of the model."""


class NotSetUpError(CellvaeError, ValueError):
    """An AnnData without `setup_anndata`."""


class NotTrainedError(CellvaeError, RuntimeError):
    """A method that needs a trained model."""


class TrainingError(CellvaeError, RuntimeError):
    """A training run that cannot continue."""


class ResumeError(CellvaeError, ValueError):
    """A run that cannot be resumed with this model, data or options."""


class StopTraining(CellvaeError):
    """Raised in a callback to stop training: `raise StopTraining("reason")`.

    The remaining callbacks run the same hook, then the hooks of the end of training run, and
    `train` returns.
    """


class ProcessError(CellvaeError, RuntimeError):
    """An error of another process, which this one was waiting for."""


class FileFormatError(CellvaeError, ValueError):
    """A model file that is damaged, incomplete, or of an unknown version."""


class UnsafeFileError(FileFormatError):
    """A model file that would need more than reading values: code, other paths, huge memory."""


class OutputError(CellvaeError, OSError):
    """A file of results that cannot be written, as on a full disk."""


class DownloadError(CellvaeError, OSError):
    """A file of a data set that cannot be downloaded, or has unexpected content."""


class CellvaeWarning(UserWarning):
    """Base class of all warnings of the package."""


class DataWarning(CellvaeWarning):
    """Data that can be used but are probably not what was intended."""


class TrainingWarning(CellvaeWarning):
    """A training run that will probably not do what was intended."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Sentence naming the known word closest to a mistyped one, empty if none is close."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean '{lowered[close[0]]}'?" if close else ""


def missing_name_error(
    module: str, name: str, instead: Mapping[str, str], public: Collection[str]
) -> AttributeError:
    """Error that `__getattr__` of a module raises: what to use, or the closest name.

    Parameters
    ----------
    module
        Name of the module.
    name
        Name that the module does not have.
    instead
        Names that scvi-tools has in the module of the same name, and what to use in their place.
    public
        Names that the module has.
    """
    text = f"module '{module}' has no attribute '{name}'"
    if name in instead:
        return AttributeError(f"{text}: {instead[name]}")
    close = did_you_mean(name, public)
    return AttributeError(f"{text}.{close}" if close else text)


def quote_names(values: Sequence[object], most: int = 5) -> str:
    """Quoted values for a message, at most `most` of them."""
    shown = ", ".join(repr(str(value)) for value in values[:most])
    left = len(values) - most
    return f"{shown} and {left:,} more" if left > 0 else shown


def count_noun(n: int, what: str) -> str:
    """Number with its noun: "1 other", "2 others"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def __dir__() -> list[str]:
    return sorted(__all__)

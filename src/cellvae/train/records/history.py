"""Metrics by epoch: a tidy table, single metrics as in scvi-tools, and JSON."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.train.records.history_json import HistoryValues, decode_history, encode_history
from cellvae.train.records.jsonable import to_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(Mapping[str, pd.DataFrame]):
    """Metrics of every epoch that a model was trained for.

    `history["elbo_train"]` is a table with one float column, indexed by epoch;
    :attr:`table` has all metrics side by side.

    Attributes
    ----------
    epochs
        Numbers of the epochs, counted over all runs of the model.
    runs
        For each epoch the call of `train` that it belongs to, counted from 0.
    objects
        Values that are not numbers, such as a confusion matrix, by name and epoch.
    notes
        Values that belong to no epoch, such as scores before training.

    Examples
    --------
    >>> history = History()
    >>> history.add(0, {"elbo_train": 350.5})
    >>> history.update("accuracy", 0.9)
    >>> history.latest("accuracy")
    0.9
    """

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.rows: list[dict[str, float]] = []
        self.runs: list[int] = []
        self.objects: dict[str, dict[int, Any]] = {}
        self.notes: dict[str, Any] = {}
        self.columns: dict[str, None] = {}
        self.row_of_epoch: dict[int, int] = {}
        self.prefix = ""
        self.run = 0

    # Writing

    @property
    def next_epoch(self) -> int:
        """Number of the first epoch of a further run."""
        return self.epochs[-1] + 1 if self.epochs else 0

    @property
    def current_epoch(self) -> int | None:
        """Number of the last epoch in the history; None if there is none."""
        return self.epochs[-1] if self.epochs else None

    def begin_run(self) -> None:
        """Start a new run, to which the following epochs belong."""
        self.run = self.runs[-1] + 1 if self.runs else 0

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch, to those that it has already if it is in the history.

        Raises
        ------
        InvalidOptionError
            If a later epoch is in the history and this one is not.
        """
        named = {self.prefix + name: float(value) for name, value in metrics.items()}
        self.columns.update(dict.fromkeys(named))
        index = self.row_of_epoch.get(epoch)
        if index is not None:
            self.rows[index].update(named)
            return
        if self.epochs and epoch < self.epochs[-1]:
            raise InvalidOptionError(
                f"Expected an epoch after {self.epochs[-1]}, or one that was recorded; got {epoch}."
            )
        self.row_of_epoch[epoch] = len(self.epochs)
        self.epochs.append(epoch)
        self.rows.append(named)
        self.runs.append(self.run)

    def update(self, name: str, value: Any, epoch: int | None = None) -> None:
        """Record a value of any type for an epoch.

        Parameters
        ----------
        name
            Name of the metric.
        value
            A number is added to the table; anything else is stored unchanged in `objects`.
        epoch
            Number of the epoch; the last one by default.

        Raises
        ------
        InvalidOptionError
            If the epoch is not in the history. Values that belong to no epoch go to `notes`.
        """
        chosen = self.current_epoch if epoch is None else epoch
        if chosen not in self.row_of_epoch:
            raise InvalidOptionError(
                f"Expected an epoch that was recorded, to add '{name}' to; got {chosen}. "
                f"For what belongs to no epoch: history.notes['{name}'] = ..."
            )
        number = to_number(value)
        if number is not None:
            self.add(chosen, {name: number})
        else:
            self.objects.setdefault(self.prefix + name, {})[chosen] = value

    def delete(self, name: str) -> None:
        """Delete a metric.

        Raises
        ------
        KeyError
            If there is none of this name.
        """
        self.check_name(name)
        self.columns.pop(name, None)
        self.objects.pop(name, None)
        for row in self.rows:
            row.pop(name, None)

    def truncate(self, epoch: int) -> None:
        """Delete this epoch and all later ones."""
        keep = next((i for i, each in enumerate(self.epochs) if each >= epoch), len(self.epochs))
        for each in self.epochs[keep:]:
            del self.row_of_epoch[each]
        del self.epochs[keep:], self.rows[keep:], self.runs[keep:]
        self.columns = dict.fromkeys(name for row in self.rows for name in row)
        for values in self.objects.values():
            for each in [number for number in values if number >= epoch]:
                del values[each]
        self.objects = {name: values for name, values in self.objects.items() if values}

    @contextmanager
    def with_prefix(self, prefix: str) -> Iterator[History]:
        """Context in which the names of recorded metrics get a prefix."""
        before, self.prefix = self.prefix, self.prefix + prefix
        try:
            yield self
        finally:
            self.prefix = before

    # Reading

    @property
    def table(self) -> pd.DataFrame:
        """All metrics, one row per epoch; NaN where a metric was not measured."""
        index = pd.Index(self.epochs, name="epoch", dtype="int64")
        return pd.DataFrame(self.rows, index=index, columns=self.names, dtype="float64")

    @property
    def names(self) -> list[str]:
        """Names of the metrics in the table, in the order of their first values."""
        return list(self.columns)

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics in the table and in `objects`."""
        return [*self.columns, *(name for name in self.objects if name not in self.columns)]

    def values_of(self, name: str) -> list[Any]:
        """All values of a metric, in the order of the epochs.

        Raises
        ------
        KeyError
            If there is none of this name.
        """
        self.check_name(name)
        if name in self.columns:
            return [row[name] for row in self.rows if name in row]
        return [self.objects[name][epoch] for epoch in sorted(self.objects[name])]

    def latest(self, name: str) -> Any:
        """Last value of a metric.

        Raises
        ------
        KeyError
            If it was never recorded.
        """
        values = self.values_of(name)
        if not values:
            raise KeyError(f"No value of '{name}' was recorded.")
        return values[-1]

    def last_numeric(self, name: str) -> float | None:
        """Last value of a metric in the table; None if it was never measured."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)

    def check_name(self, name: str) -> None:
        """Raise KeyError if there is no metric of this name."""
        if name not in self.columns and name not in self.objects:
            known = self.metric_names
            raise KeyError(f"No metric '{name}' was recorded.{did_you_mean(name, known)}")

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self.columns:
            raise KeyError(f"No metric '{name}' was recorded.{did_you_mean(name, self.names)}")
        return self.table[[name]].dropna()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"History of {len(self.epochs)} epochs: {', '.join(self.names)}"

    def plot(self, best_epoch: int | None = None, metrics: Sequence[str] | None = None) -> Figure:
        """Plot the curves of a training run, with the best epoch marked.

        Parameters
        ----------
        best_epoch
            Epoch to mark.
        metrics
            Names of the metrics, one panel each; by default ELBO, reconstruction, KL, KL weight.
        """
        from cellvae.plotting.training_curves import metric_curves, training_curves

        if metrics is None:
            return training_curves(self.table, best_epoch=best_epoch)
        for name in metrics:
            if name not in self.columns:
                raise InvalidOptionError(
                    f"Expected metrics to be among those recorded; got '{name}'."
                    f"{did_you_mean(name, self.names)}"
                )
        return metric_curves(self.table, metrics, best_epoch=best_epoch)

    def copy(self) -> History:
        """Copy of the history that can be changed independently."""
        other = History()
        other.epochs, other.runs = list(self.epochs), list(self.runs)
        other.rows = [dict(row) for row in self.rows]
        other.columns, other.row_of_epoch = dict(self.columns), dict(self.row_of_epoch)
        other.objects = {name: dict(values) for name, values in self.objects.items()}
        other.notes, other.run = copy.deepcopy(self.notes), self.run
        return other

    # Files

    def to_csv(self, path: str | Path) -> None:
        """Write the table as CSV, with the run that each epoch belongs to."""
        table = self.table.set_index(pd.Index(self.runs, name="run", dtype="int64"), append=True)
        table.to_csv(path)

    def to_json(self) -> dict[str, Any]:
        """Values for a file: epochs, and a list by metric with None where it was not measured.

        What JSON cannot hold is left out.
        """
        return encode_history(
            HistoryValues(self.epochs, self.rows, self.runs, self.names, self.objects, self.notes)
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> History:
        """History from the values of a file.

        Raises
        ------
        FileFormatError
            If they are not those of a history.
        """
        history, decoded = cls(), decode_history(values)
        for epoch, row, run in zip(decoded.epochs, decoded.rows, decoded.runs, strict=True):
            history.run = run
            history.add(epoch, row)
        history.objects, history.notes = decoded.objects, decoded.notes
        history.columns = {name: None for name in decoded.names if name in history.columns}
        return history

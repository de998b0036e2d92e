"""Metrics by epoch: one tidy table, single columns as scvi-tools users read them, JSON."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellvae.errors import FileFormatError, InvalidOptionError, did_you_mean
from cellvae.train.records.jsonable import UNSERIALIZABLE, from_plain, to_number, to_plain

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
        Values that are no numbers, such as a matrix of confusion, by name and epoch.
    notes
        What belongs to the whole of the training, such as scores before it.

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
        """Number of the epoch that a further run starts with."""
        return self.epochs[-1] + 1 if self.epochs else 0

    @property
    def current_epoch(self) -> int | None:
        """Number of the last epoch; None before the first."""
        return self.epochs[-1] if self.epochs else None

    def begin_run(self) -> None:
        """Make the epochs that follow belong to a run of their own."""
        self.run = self.runs[-1] + 1 if self.runs else 0

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch; those of one that is there already are completed.

        Raises
        ------
        InvalidOptionError
            If it is not there and a later one is: epochs go up.
        """
        named = {self.prefix + name: float(value) for name, value in metrics.items()}
        self.columns.update(dict.fromkeys(named))
        place = self.row_of_epoch.get(epoch)
        if place is not None:
            self.rows[place].update(named)
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
        """Record a value of any kind for an epoch.

        Parameters
        ----------
        name
            Name of the metric.
        value
            A number goes to the table; anything else is kept as it is, in `objects`.
        epoch
            Number of the epoch; the last one by default.

        Raises
        ------
        InvalidOptionError
            If there is no such epoch. What belongs to the whole of the training goes to `notes`.
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
        """Forget a metric.

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
        """Forget this epoch and all that follow it."""
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
    def prefixed(self, prefix: str) -> Iterator[History]:
        """Context in which the names of all metrics that are recorded begin with a prefix."""
        before, self.prefix = self.prefix, self.prefix + prefix
        try:
            yield self
        finally:
            self.prefix = before

    # Reading

    @property
    def table(self) -> pd.DataFrame:
        """All metrics, one row an epoch; missing where a metric was not measured."""
        index = pd.Index(self.epochs, name="epoch", dtype="int64")
        return pd.DataFrame(self.rows, index=index, columns=self.names, dtype="float64")

    @property
    def names(self) -> list[str]:
        """Names of the metrics, in the order they first came."""
        return list(self.columns)

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics and of what is no number."""
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
        """Check that there is a metric of this name."""
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
        """Figure of a training run, the best epoch marked.

        Parameters
        ----------
        best_epoch
            Epoch that is marked.
        metrics
            Names of the metrics, a panel each; by default ELBO, reconstruction, KL and KL weight.
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
        """History with the same epochs that can be added to by itself."""
        other = History()
        other.epochs, other.runs = list(self.epochs), list(self.runs)
        other.rows = [dict(row) for row in self.rows]
        other.columns, other.row_of_epoch = dict(self.columns), dict(self.row_of_epoch)
        other.objects = {name: dict(values) for name, values in self.objects.items()}
        other.notes, other.run = copy.deepcopy(self.notes), self.run
        return other

    # Files

    def to_csv(self, path: str | Path) -> None:
        """Write the table, with the run that each epoch belongs to."""
        table = self.table.set_index(pd.Index(self.runs, name="run", dtype="int64"), append=True)
        table.to_csv(path)

    def to_json(self) -> dict[str, Any]:
        """Values for a file: epochs, and a list by metric with None where it was not measured.

        What JSON cannot hold is left out.
        """
        columns = {name: [row.get(name) for row in self.rows] for name in self.names}
        objects = {
            name: {
                str(epoch): found
                for epoch, value in values.items()
                if (found := to_plain(value)) is not UNSERIALIZABLE
            }
            for name, values in self.objects.items()
        }
        notes = {name: to_plain(value) for name, value in self.notes.items()}
        return {
            "epochs": list(self.epochs),
            "metrics": columns,
            "runs": list(self.runs),
            "objects": {name: values for name, values in objects.items() if values},
            "notes": {name: value for name, value in notes.items() if value is not UNSERIALIZABLE},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> History:
        """History from the values of a file.

        Raises
        ------
        FileFormatError
            If they are not those of a history.
        """
        history = cls()
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
            numbers_of_epochs = [int(epoch) for epoch in epochs]
            for i, epoch in enumerate(numbers_of_epochs):
                history.run = int(runs[i])
                row = {k: float(c[i]) for k, c in metrics.items() if c[i] is not None}
                history.add(epoch, row)
            history.objects = {
                str(name): {int(epoch): from_plain(value) for epoch, value in each.items()}
                for name, each in objects.items()
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"Expected numbers in the history: {error}") from error
        if numbers_of_epochs != sorted(set(numbers_of_epochs)):
            raise FileFormatError("Expected the epochs of the history to go up, each once.")
        history.notes = {str(name): from_plain(value) for name, value in notes.items()}
        history.columns = {name: None for name in metrics if name in history.columns}
        return history

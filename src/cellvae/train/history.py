"""Metrics by epoch: one tidy table, single columns as scvi-tools users read them, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellvae.errors import FileFormatError, did_you_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(Mapping[str, pd.DataFrame]):
    """Metrics of every epoch that a model was trained for.

    `history["elbo_train"]` is a table with one float column, indexed by epoch;
    :attr:`table` has all metrics side by side.
    """

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.rows: list[dict[str, float]] = []

    @property
    def next_epoch(self) -> int:
        """Number of the epoch that a further run starts with."""
        return self.epochs[-1] + 1 if self.epochs else 0

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch; those of one that is there already are completed."""
        if epoch in self.epochs:
            self.rows[self.epochs.index(epoch)].update(metrics)
        else:
            self.epochs.append(epoch)
            self.rows.append(dict(metrics))

    @property
    def table(self) -> pd.DataFrame:
        """All metrics, one row an epoch; missing where a metric was not measured."""
        index = pd.Index(self.epochs, name="epoch", dtype="int64")
        return pd.DataFrame(self.rows, index=index, columns=self.names, dtype="float64")

    @property
    def names(self) -> list[str]:
        """Names of the metrics, in the order they first came."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def last(self, name: str) -> float | None:
        """Last value of a metric; None if it was never measured."""
        return next((row[name] for row in reversed(self.rows) if name in row), None)

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self.names:
            raise KeyError(f"No metric '{name}' was recorded.{did_you_mean(name, self.names)}")
        return self.table[[name]].dropna()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"History of {len(self.epochs)} epochs: {', '.join(self.names)}"

    def plot(self, best_epoch: int | None = None) -> Figure:
        """Figure of ELBO, reconstruction, KL and KL weight by epoch, the best epoch marked."""
        from cellvae.plotting.training_curves import training_curves

        return training_curves(self.table, best_epoch=best_epoch)

    def copy(self) -> History:
        """History with the same epochs that can be added to by itself."""
        other = History()
        other.epochs = list(self.epochs)
        other.rows = [dict(row) for row in self.rows]
        return other

    def to_json(self) -> dict[str, Any]:
        """Values for a file: epochs, and a list by metric with None where it was not measured."""
        columns = {name: [row.get(name) for row in self.rows] for name in self.names}
        return {"epochs": list(self.epochs), "metrics": columns}

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
        if not isinstance(epochs, list) or not isinstance(metrics, dict):
            raise FileFormatError("Expected a history to have 'epochs' and 'metrics'.")
        if any(not isinstance(c, list) or len(c) != len(epochs) for c in metrics.values()):
            raise FileFormatError(f"Expected {len(epochs)} values of each metric of the history.")
        try:
            numbers = [int(epoch) for epoch in epochs]
            for i, epoch in enumerate(numbers):
                row = {k: float(c[i]) for k, c in metrics.items() if c[i] is not None}
                history.add(epoch, row)
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"Expected numbers in the history: {error}") from error
        if numbers != sorted(set(numbers)):
            raise FileFormatError("Expected the epochs of the history to go up, each once.")
        return history

"""Feature axes: names of the features of each table that a model reads, in its order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.core.files.json_object import JsonObject
from cellvae.core.log import logger
from cellvae.errors import (
    DataMismatchError,
    FileFormatError,
    InvalidDataError,
    did_you_mean,
    quote_names,
)


@final
@dataclass(frozen=True)
class FeatureAxis:
    """Features of one table that a model reads, in the order of the model.

    Parameters
    ----------
    name
        What the features are, in the plural: `"genes"`, `"proteins"` or `"regions"`.
    features
        Name of each feature.
    """

    name: str
    features: tuple[str, ...]

    def __len__(self) -> int:
        """Count the features."""
        return len(self.features)

    def order_in(self, names: Iterable[str], where: str = "AnnData") -> NDArray[np.int64] | None:
        """Indices of the features among the names of a table; None if the names are the same.

        Parameters
        ----------
        names
            Names of the features of the table.
        where
            What has the table, for messages.

        Raises
        ------
        DataMismatchError
            If features are missing; the message names them.
        InvalidDataError
            If a feature of the model occurs twice.
        """
        available = names if isinstance(names, pd.Index) else pd.Index([*names])
        if len(available) == len(self) and list(available) == list(self.features):
            return None
        found = self.find_in(available)
        if (found < 0).any():
            missing = [*pd.Index(self.features)[found < 0]]
            raise DataMismatchError(self.missing_message(available, missing))
        logger.info(
            "Matched the %s %s of the model by name: the %s has %s.",
            f"{len(self):,}",
            self.name,
            where,
            "them in another order" if len(available) == len(self) else f"{len(available):,}",
        )
        return found

    def find_in(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Indices of the features among the names of a table; -1 for those that it lacks.

        Raises
        ------
        InvalidDataError
            If a feature of the model occurs twice.
        """
        available = names if isinstance(names, pd.Index) else pd.Index([*names])
        wanted = pd.Index(self.features)
        repeated = available[available.duplicated()].intersection(wanted)
        if len(repeated):
            raise InvalidDataError(
                f"Expected each {self.noun} once; got {quote_names([*repeated])} more than once. "
                "Make the names unique with adata.var_names_make_unique()."
            )
        first = np.flatnonzero(~available.duplicated())
        found = available[first].get_indexer(wanted)
        if not len(first):
            return np.full(len(wanted), -1, dtype=np.int64)
        return np.where(found < 0, -1, first[found]).astype(np.int64)

    def missing_message(self, available: Iterable[str], missing: list[str]) -> str:
        """Error message for a table that lacks features of the model."""
        close = did_you_mean(missing[0], map(str, available))
        return (
            f"Expected the {len(self):,} {self.name} the model was trained on; got "
            f"{len(self) - len(missing):,}: missing {quote_names(missing)}.{close} Rename "
            f"the {self.name} if they have other names there, or train a model on the {self.name} "
            "in common."
        )

    @property
    def noun(self) -> str:
        """What one feature is."""
        return self.name.removesuffix("s")

    def to_json(self) -> dict[str, object]:
        """JSON object."""
        return {"name": self.name, "features": list(self.features)}

    @classmethod
    def from_json(cls, values: object, where: str) -> FeatureAxis:
        """Axis from its JSON object.

        Raises
        ------
        FileFormatError
            If an entry is unknown, missing or of another type, or there are no features.
        """
        entries = JsonObject(values, where)
        axis = cls(entries.string("name"), entries.list_of_strings("features"))
        entries.refuse_unread()
        if not axis.features:
            raise FileFormatError(f"Expected at least one feature in {where}; got none.")
        return axis

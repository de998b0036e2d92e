"""Batches that cells are decoded as if they came from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from cellvae.data.entries import Scalar
from cellvae.data.registration import Registration
from cellvae.errors import InvalidOptionError, UnknownKeyError, did_you_mean, named

BatchChoice: TypeAlias = "Scalar | None | Iterable[Scalar | None]"
"""One batch, several, or None for the one that a cell has."""


def batch_codes(registration: Registration[Any], transform_batch: BatchChoice) -> list[int | None]:
    """Codes of the batches asked for; None stands for the batch that a cell has.

    Raises
    ------
    UnknownKeyError
        If a batch is not one of those that the model was made for.
    InvalidOptionError
        If the list is empty.
    """
    known = registration.categories("batch")
    alone = isinstance(transform_batch, str) or not isinstance(transform_batch, Iterable)
    asked: list[Any] = [transform_batch] if alone else [*transform_batch]  # type: ignore[misc]
    if not asked:
        raise InvalidOptionError(
            "Expected at least one batch in transform_batch; got none. "
            "Give None for the batch that each cell has."
        )
    unknown = [batch for batch in asked if batch is not None and batch not in known]
    if unknown:
        raise UnknownKeyError(
            f"Expected transform_batch to be one of {named(known, most=10)}; got "
            f"{named(unknown)}.{did_you_mean(str(unknown[0]), map(str, known))}"
        )
    return [None if batch is None else known.index(batch) for batch in asked]

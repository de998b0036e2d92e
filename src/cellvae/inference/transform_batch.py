"""Batches that cells are decoded as if they came from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from cellvae.data.setup.categories import CategoryCodes, Scalar, requested_values, unknown_values
from cellvae.data.setup.registration import Registration
from cellvae.errors import InvalidOptionError, UnknownKeyError

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
    asked = requested_values(transform_batch, known)
    if not asked:
        raise InvalidOptionError(
            "Expected at least one batch in transform_batch; got none. "
            "Give None for the batch that each cell has."
        )
    codes = CategoryCodes(known)
    found = [None if batch is None else codes.find(batch) for batch in asked]
    pairs = zip(asked, found, strict=True)
    unknown = [batch for batch, code in pairs if batch is not None and code is None]
    if unknown:
        message = unknown_values(unknown, known, most=10)
        raise UnknownKeyError(
            f"Expected transform_batch to be one of {message.expected}; got {message.got}."
            f"{message.advice}"
        )
    return found

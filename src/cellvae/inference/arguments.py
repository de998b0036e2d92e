"""Arguments that the functions of inference share: counts, choices, genes and batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cellvae.data.setup.categories import CategoryCodes, Scalar, requested_values, unknown_values
from cellvae.data.setup.registration import Registration
from cellvae.errors import (
    InvalidOptionError,
    UnknownKeyError,
    count_noun,
    did_you_mean,
    quote_names,
)

INTEGERS = (
    "batch_size",
    "max_cells",
    "mc_samples",
    "n_mc_samples",
    "n_mc_samples_per_pass",
    "n_samples",
    "n_samples_overall",
    "num_cells_posterior",
)
"""Arguments that count something: integral floats and NumPy scalars are converted to int."""

BatchChoice: TypeAlias = "Scalar | None | Iterable[Scalar | None]"
"""One batch, several, or None for the batch of each cell."""


def check_at_least_one(argument: str, value: int | None) -> None:
    """Check that an argument that counts something is None or at least 1.

    Raises
    ------
    InvalidOptionError
        If it is below 1.
    """
    if value is not None and value < 1:
        raise InvalidOptionError(f"Expected {argument} to be at least 1; got {value}.")


def check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Check that an argument is one of several strings.

    Raises
    ------
    InvalidOptionError
        If it is not.
    """
    if value not in choices:
        raise InvalidOptionError(
            f"Expected {argument} to be {' or '.join(map(repr, choices))}; got {value!r}."
            f"{did_you_mean(str(value), choices)}"
        )


def batch_codes(registration: Registration[Any], transform_batch: BatchChoice) -> list[int | None]:
    """Codes of the requested batches; None stands for the batch of each cell.

    Raises
    ------
    UnknownKeyError
        If a batch is not one of the model.
    InvalidOptionError
        If the list is empty.
    """
    categories = registration.categories("batch")
    batches = requested_values(transform_batch, categories)
    if not batches:
        raise InvalidOptionError(
            "Expected at least one batch in transform_batch; got none. "
            "Give None for the batch that each cell has."
        )
    lookup = CategoryCodes(categories)
    codes = [None if batch is None else lookup.find(batch) for batch in batches]
    pairs = zip(batches, codes, strict=True)
    unknown = [batch for batch, code in pairs if batch is not None and code is None]
    if unknown:
        message = unknown_values(unknown, categories, most=10)
        raise UnknownKeyError(
            f"Expected transform_batch to be one of {message.expected}; got {message.got}."
            f"{message.advice}"
        )
    return codes


def gene_positions(genes: tuple[str, ...], gene_list: Iterable[str] | None) -> Tensor | None:
    """Positions of the requested genes among those of a model, as :func:`feature_positions`."""
    return feature_positions(genes, gene_list, "gene")


def feature_positions(
    features: tuple[str, ...], requested: Iterable[str] | None, noun: str
) -> Tensor | None:
    """Positions of the requested features among those of a model, in the requested order.

    Parameters
    ----------
    features
        Names of the features of the model.
    requested
        Names of the requested features, which may repeat; a string is one feature. None for all,
        for which the result is None.
    noun
        What a feature is; `requested` is the argument `{noun}_list`.

    Raises
    ------
    UnknownKeyError
        If a name is not that of a feature of the model.
    InvalidOptionError
        If the list is empty.
    """
    if requested is None:
        return None
    names = [requested] if isinstance(requested, str) else [*requested]
    if not names:
        raise InvalidOptionError(f"Expected at least one {noun} in {noun}_list; got none.")
    positions = {name: position for position, name in enumerate(features)}
    unknown = [name for name in names if name not in positions]
    if unknown:
        raise UnknownKeyError(
            f"Expected names of {noun}s of the model; "
            f"got {count_noun(len(unknown), 'other')}: {quote_names(unknown)}."
            f"{did_you_mean(str(unknown[0]), features)}"
        )
    return torch.from_numpy(np.array([positions[name] for name in names], dtype=np.int64))


def gene_names(genes: tuple[str, ...], positions: Tensor | None) -> list[str]:
    """Names of the genes at some positions; of all genes for None."""
    return [*genes] if positions is None else [genes[i] for i in positions.tolist()]

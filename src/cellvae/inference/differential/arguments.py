"""Arguments of differential expression that cannot be, refused before the pass begins."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cellvae.errors import InvalidOptionError, did_you_mean


def check_choice(argument: str, value: object, known: Sequence[str]) -> None:
    """Refuse a word that is not one of those known."""
    if value not in known:
        raise InvalidOptionError(
            f"Expected {argument} to be {' or '.join(map(repr, known))}; got {value!r}."
            f"{did_you_mean(str(value), known)}"
        )


def check_group_arguments(
    groupby: object, group1: object, group2: object, idx1: object, idx2: object
) -> None:
    """Refuse neither or both of a column and cells."""
    if (groupby is None) == (idx1 is None):
        raise InvalidOptionError(
            "Expected one of groupby (a column of adata.obs) and idx1 (cells); got "
            f"{'neither' if groupby is None else 'both'}."
        )
    if idx1 is None and idx2 is not None:
        raise InvalidOptionError("Expected idx1 with idx2; got idx2 alone.")
    if groupby is None and (group1 is not None or group2 is not None):
        raise InvalidOptionError("Expected groupby with group1 and group2; got idx1.")


def check_ranges(
    delta: float | None, pseudocounts: float | None, fdr_target: float, n_samples_overall: int
) -> None:
    """Refuse numbers out of range."""
    for name, value in (("delta", delta), ("pseudocounts", pseudocounts)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InvalidOptionError(
                f"Expected {name} to be a number of at least 0, or None; got {value!r}."
            )
    if not 0 < fdr_target < 1:
        raise InvalidOptionError(f"Expected fdr_target between 0 and 1; got {fdr_target!r}.")
    if n_samples_overall < 2:
        raise InvalidOptionError(
            f"Expected n_samples_overall to be at least 2; got {n_samples_overall}."
        )


def check_batches(batch_correction: bool, batchid1: object, batchid2: object) -> None:
    """Refuse batches that would not be used."""
    if not batch_correction and (batchid1 is not None or batchid2 is not None):
        raise InvalidOptionError(
            "Expected batch_correction=True with batchid1 and batchid2, the batches that cells are "
            "decoded as if they came from; got batch_correction=False."
        )

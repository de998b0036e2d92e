"""Checks of the arguments of normalized expression, made before any cell is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.inference.arguments import check_at_least_one, check_choice


def check_samples(
    n_samples: int,
    n_samples_overall: int | None,
    return_mean: bool,
    return_numpy: bool | None,
    out: str | Path | None,
) -> None:
    """Check numbers of samples, and that the type of the result can hold them.

    Raises
    ------
    InvalidOptionError
        If they contradict each other.
    """
    check_at_least_one("n_samples", n_samples)
    check_at_least_one("n_samples_overall", n_samples_overall)
    if n_samples_overall is not None and n_samples != 1:
        raise InvalidOptionError(
            "Expected one of n_samples (for each cell) and n_samples_overall (for all cells); "
            f"got n_samples={n_samples} and n_samples_overall={n_samples_overall}."
        )
    if n_samples > 1 and not return_mean and (return_numpy is False or out is not None):
        container = "DataFrame" if out is None else "file"
        raise InvalidOptionError(
            f"Expected a result of two dimensions for a {container}; got n_samples={n_samples} "
            "with return_mean=False, which has three. Leave out return_numpy and out to get an "
            "array [samples, cells, genes], or use return_mean=True."
        )
    if out is not None and return_numpy is not None:
        raise InvalidOptionError(
            "Expected either out or return_numpy; got both. The file holds an AnnData."
        )


def check_library_size(library_size: object) -> None:
    """Check that a library size is a positive number or `"latent"`.

    Raises
    ------
    InvalidOptionError
        If it is neither.
    """
    if isinstance(library_size, str):
        if library_size != "latent":
            raise InvalidOptionError(
                f"Expected library_size to be a positive number or 'latent'; got {library_size!r}."
                f"{did_you_mean(library_size, ['latent'])}"
            )
        return
    is_number = isinstance(library_size, int | float | np.number) and not isinstance(
        library_size, bool
    )
    if not (is_number and 0 < float(library_size) < float("inf")):  # type: ignore[arg-type]
        raise InvalidOptionError(
            f"Expected library_size to be a positive number or 'latent'; got {library_size!r}."
        )


def check_weights(
    weights: str | None, n_samples: int, n_samples_overall: int | None, return_mean: bool
) -> None:
    """Check weights, and that there are several samples for importance weights.

    Raises
    ------
    InvalidOptionError
        If weights are unknown or would have no effect.
    """
    if weights is not None:
        check_choice("weights", weights, ("uniform", "importance"))
    averaged = n_samples > 1 and return_mean
    if weights == "importance" and not averaged and n_samples_overall is None:
        raise InvalidOptionError(
            "Expected several samples to weight by importance: give n_samples above 1 with "
            "return_mean=True, or n_samples_overall."
        )

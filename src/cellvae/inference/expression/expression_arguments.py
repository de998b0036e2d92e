"""Arguments of normalized expression that cannot be, refused before the pass begins."""

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
    """Refuse numbers of samples that cannot be, and results that cannot hold them."""
    check_at_least_one("n_samples", n_samples)
    check_at_least_one("n_samples_overall", n_samples_overall)
    if n_samples_overall is not None and n_samples != 1:
        raise InvalidOptionError(
            "Expected one of n_samples (draws for each cell) and n_samples_overall (draws in all); "
            f"got n_samples={n_samples} and n_samples_overall={n_samples_overall}."
        )
    if n_samples > 1 and not return_mean and (return_numpy is False or out is not None):
        holder = "DataFrame" if out is None else "file"
        raise InvalidOptionError(
            f"Expected a result of two dimensions for a {holder}; got n_samples={n_samples} with "
            "return_mean=False, which has three. Leave out return_numpy and out to get an array "
            "[samples, cells, genes], or use return_mean=True."
        )
    if out is not None and return_numpy is not None:
        raise InvalidOptionError(
            "Expected either out or return_numpy; got both. What is in the file is an AnnData."
        )


def check_library_size(library_size: object) -> None:
    """Refuse a size that is neither a positive number nor "latent"."""
    if isinstance(library_size, str):
        if library_size != "latent":
            raise InvalidOptionError(
                f"Expected library_size to be a positive number or 'latent'; got {library_size!r}."
                f"{did_you_mean(library_size, ['latent'])}"
            )
        return
    number = isinstance(library_size, int | float | np.number) and not isinstance(
        library_size, bool
    )
    if not (number and 0 < float(library_size) < float("inf")):  # type: ignore[arg-type]
        raise InvalidOptionError(
            f"Expected library_size to be a positive number or 'latent'; got {library_size!r}."
        )


def check_weights(
    weights: str | None, n_samples: int, n_samples_overall: int | None, return_mean: bool
) -> None:
    """Refuse unknown weights, and importance where there is nothing to weight."""
    if weights is not None:
        check_choice("weights", weights, ("uniform", "importance"))
    averaged = n_samples > 1 and return_mean
    if weights == "importance" and not averaged and n_samples_overall is None:
        raise InvalidOptionError(
            "Expected several draws to weight by importance: give n_samples above 1 with "
            "return_mean=True, or n_samples_overall."
        )

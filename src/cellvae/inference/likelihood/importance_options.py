"""Options of importance weights, as functions that draw from a population take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cellvae.core.options import Options, from_kwargs, option
from cellvae.errors import InvalidOptionError


@dataclass(frozen=True, kw_only=True)
class ImportanceOptions(Options):
    """How draws from the posteriors of a population are weighted.

    Parameters
    ----------
    max_cells
        Cells that stand for the population, chosen at random if there are more.
    truncation
        Whether large weights are lowered, which bounds the variance.
    n_mc_samples, n_mc_samples_per_pass
        Draws for the marginal likelihood of each of these cells.
    """

    max_cells: int = option(1024, at_least=1)
    truncation: bool = False
    n_mc_samples: int = option(500, at_least=1)
    n_mc_samples_per_pass: int = option(250, at_least=1)


def importance_options(
    given: Mapping[str, Any] | None, weights: str | None
) -> ImportanceOptions | None:
    """Options made from a dictionary; None where none are given.

    Raises
    ------
    InvalidOptionError
        If they would not be used, are not a dictionary, or have a value that they cannot take.
    UnknownOptionError
        If one of them is misspelt.
    """
    if given is None or (isinstance(given, Mapping) and not given):
        return None
    if not isinstance(given, Mapping):
        raise InvalidOptionError(
            "Expected importance_weighting_kwargs to be a dictionary, such as "
            f"{{'max_cells': 256}}; got {given!r:.80}."
        )
    options = from_kwargs(ImportanceOptions, given, "importance_weighting_kwargs")
    if weights != "importance":
        raise InvalidOptionError(
            "Expected weights='importance' with importance_weighting_kwargs; got "
            f"weights={weights!r}, which has no use for them."
        )
    return options

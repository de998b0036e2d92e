"""Options of importance weights over a population of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cellvae.core.options import Options, from_kwargs, option
from cellvae.errors import InvalidOptionError


@dataclass(frozen=True, kw_only=True)
class ImportanceOptions(Options):
    """How samples from the posteriors of a population are weighted.

    Parameters
    ----------
    max_cells
        Number of cells that represent the population, chosen at random if there are more.
    truncation
        Whether large weights are truncated, which bounds the variance.
    n_mc_samples, n_mc_samples_per_pass
        Number of samples for the marginal likelihood of each of these cells.
    """

    max_cells: int = option(1024, at_least=1)
    truncation: bool = False
    n_mc_samples: int = option(500, at_least=1)
    n_mc_samples_per_pass: int = option(250, at_least=1)


def importance_options(
    importance_kwargs: Mapping[str, Any] | None, weights: str | None
) -> ImportanceOptions | None:
    """Options from keyword arguments; None if there are none.

    Raises
    ------
    InvalidOptionError
        If they would have no effect, are not a dictionary, or have an invalid value.
    UnknownOptionError
        If there is no such option.
    """
    if importance_kwargs is None or importance_kwargs == {}:
        return None
    if not isinstance(importance_kwargs, Mapping):
        raise InvalidOptionError(
            "Expected importance_weighting_kwargs to be a dictionary, such as "
            f"{{'max_cells': 256}}; got {importance_kwargs!r:.80}."
        )
    options = from_kwargs(ImportanceOptions, importance_kwargs, "importance_weighting_kwargs")
    if weights != "importance":
        raise InvalidOptionError(
            "Expected weights='importance' with importance_weighting_kwargs; got "
            f"weights={weights!r}, which does not use them."
        )
    return options

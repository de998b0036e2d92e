"""Searches for options of a model and of its training, on Ray Tune (extra `tune`)."""

from cellvae.tune.domains import choice, grid_search, lograndint, loguniform, randint, uniform
from cellvae.tune.run_search import run
from cellvae.tune.search_result import SearchResult

__all__ = [
    "SearchResult",
    "choice",
    "grid_search",
    "lograndint",
    "loguniform",
    "randint",
    "run",
    "uniform",
]


def __dir__() -> list[str]:
    return sorted(__all__)

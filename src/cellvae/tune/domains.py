"""Values that an option takes in a search: a list of them, or numbers of a range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from cellvae.errors import InvalidOptionError

GRID = "grid_search"


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Parameters
    ----------
    values
        The values.
    every
        Whether each is tried, in all combinations with others such, rather than drawn.
    """

    values: tuple[Any, ...]
    every: bool = False


@dataclass(frozen=True)
class Interval:
    """A number of a range.

    Parameters
    ----------
    lower, upper
        Ends of the range; integers are drawn below `upper`.
    log
        Whether the logarithm is drawn uniformly.
    integer
        Whether numbers are integers.
    """

    lower: float
    upper: float
    log: bool = False
    integer: bool = False

    def ends(self) -> list[float]:
        """Smallest and largest number."""
        return [self.lower, self.upper - 1 if self.integer else self.upper]


@dataclass(frozen=True)
class Drawn:
    """Numbers that are drawn by a function of Ray, of which nothing more is known.

    Parameters
    ----------
    name
        Class of the domain.
    """

    name: str


@runtime_checkable
class RayDomain(Protocol):
    """Any domain of Ray, such as `ray.tune.choice([1, 2])`."""

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """A value."""


@runtime_checkable
class RayCategories(RayDomain, Protocol):
    """Domain of Ray of listed values."""

    categories: Sequence[Any]


@runtime_checkable
class RayRange(RayDomain, Protocol):
    """Domain of Ray of numbers of a range."""

    lower: Any
    upper: Any
    sampler: Any


def choice(values: Sequence[Any]) -> Choice:
    """One of several values, drawn at random.

    Parameters
    ----------
    values
        The values, of any type that the option takes.

    Raises
    ------
    InvalidOptionError
        If there are none.

    Examples
    --------
    >>> from cellvae import tune
    >>> tune.choice([10, 20, 30])
    Choice(values=(10, 20, 30), every=False)
    """
    return Choice(check_values(values))


def grid_search(values: Sequence[Any]) -> Choice:
    """Every one of several values, in all combinations; `num_samples` is then how often each.

    Parameters
    ----------
    values
        The values.

    Raises
    ------
    InvalidOptionError
        If there are none.
    """
    return Choice(check_values(values), every=True)


def uniform(lower: float, upper: float) -> Interval:
    """A number between two others.

    Parameters
    ----------
    lower, upper
        Ends of the range.

    Raises
    ------
    InvalidOptionError
        If `lower` is not below `upper`.
    """
    return make_interval(lower, upper)


def loguniform(lower: float, upper: float) -> Interval:
    """A number between two others, whose logarithm is uniform: for learning rates and weights.

    Parameters
    ----------
    lower, upper
        Ends of the range, above 0.

    Raises
    ------
    InvalidOptionError
        If `lower` is not below `upper`, or not above 0.
    """
    return make_interval(lower, upper, log=True)


def randint(lower: int, upper: int) -> Interval:
    """An integer from `lower` to `upper - 1`.

    Parameters
    ----------
    lower, upper
        Ends of the range, of which `upper` is not in it.

    Raises
    ------
    InvalidOptionError
        If `lower` is not below `upper`.
    """
    return make_interval(lower, upper, integer=True)


def lograndint(lower: int, upper: int) -> Interval:
    """An integer from `lower` to `upper - 1`, whose logarithm is uniform: for sizes of layers.

    Parameters
    ----------
    lower, upper
        Ends of the range, above 0.

    Raises
    ------
    InvalidOptionError
        If `lower` is not below `upper`, or not above 0.
    """
    return make_interval(lower, upper, log=True, integer=True)


def make_interval(
    lower: float, upper: float, *, log: bool = False, integer: bool = False
) -> Interval:
    """Range whose ends are checked.

    Raises
    ------
    InvalidOptionError
        If they are not numbers in their order, or not above 0 where logarithms are drawn.
    """
    number = int if integer else (int, float)
    fits = all(isinstance(end, number) and not isinstance(end, bool) for end in (lower, upper))
    if not fits or not -math.inf < lower < upper < math.inf or (log and lower <= 0):
        what = "integers" if integer else "numbers"
        raise InvalidOptionError(
            f"Expected two {what}, the lower first{' and above 0' if log else ''}; got {lower!r} "
            f"and {upper!r}."
        )
    return Interval(lower, upper, log, integer)


def check_values(values: Any) -> tuple[Any, ...]:
    """Values of a choice.

    Raises
    ------
    InvalidOptionError
        If there are none, or they are no list.
    """
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence) or not values:
        raise InvalidOptionError(f"Expected a list of values to choose from; got {values!r:.100}.")
    return tuple(values)


def is_domain(value: Any) -> bool:
    """Whether an option has several values: a domain of this module or of Ray."""
    grid = isinstance(value, Mapping) and {*value} == {GRID}
    return grid or isinstance(value, Choice | Interval | RayDomain)


def domain_of(value: Any) -> Choice | Interval | Drawn:
    """Domain as this module has it."""
    if isinstance(value, Choice | Interval):
        return value
    if isinstance(value, Mapping):
        return Choice(check_values(value[GRID]), every=True)
    if isinstance(value, RayCategories):
        return Choice(tuple(value.categories))
    if isinstance(value, RayRange):
        sampler = type(value.sampler).__name__
        # A quantized range has a sampler around that of its numbers.
        inner = type(vars(value.sampler).get("sampler", value.sampler)).__name__
        if "Normal" not in sampler + inner:
            integer = type(value).__name__ == "Integer"
            return Interval(value.lower, value.upper, "Log" in sampler + inner, integer)
    return Drawn(type(value).__name__)

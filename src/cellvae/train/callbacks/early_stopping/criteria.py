"""Criteria by which a metric stops a run, for one metric or for each of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cellvae.errors import InvalidOptionError, did_you_mean, quote_names

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StoppingCriteria:
    """Criteria by which one metric stops a run.

    Raises
    ------
    InvalidOptionError
        If a count is negative, or a baseline is missing.
    """

    patience: int = 45
    patience_epochs: int | None = None
    check_finite: bool = True
    baseline: float | None = None
    baseline_epochs: int = 0
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None

    def __post_init__(self) -> None:
        for name, count in (
            ("patience", self.patience),
            ("patience_epochs", self.patience_epochs or 0),
            ("baseline_epochs", self.baseline_epochs),
        ):
            if count < 0:
                raise InvalidOptionError(f"Expected {name} to be at least 0; got {count}.")
        if self.baseline_epochs and self.baseline is None:
            raise InvalidOptionError(
                f"Expected a baseline for baseline_epochs={self.baseline_epochs}; got none. "
                "Give baseline=<value that must be beaten>."
            )


def stopping_criteria(
    metrics: Sequence[str],
    *,
    patience: int | Sequence[int],
    patience_epochs: int | None | Sequence[int | None],
    check_finite: bool | Sequence[bool],
    baseline: float | None | Sequence[float | None],
    baseline_epochs: int | Sequence[int],
    stopping_threshold: float | None | Sequence[float | None],
    divergence_threshold: float | None | Sequence[float | None],
) -> list[StoppingCriteria]:
    """Criteria of each metric."""
    columns = zip(
        per_metric("patience", patience, metrics),
        per_metric("patience_epochs", patience_epochs, metrics),
        per_metric("check_finite", check_finite, metrics),
        per_metric("baseline", baseline, metrics),
        per_metric("baseline_epochs", baseline_epochs, metrics),
        per_metric("stopping_threshold", stopping_threshold, metrics),
        per_metric("divergence_threshold", divergence_threshold, metrics),
        strict=True,
    )
    return [
        StoppingCriteria(
            patience=checks,
            patience_epochs=epochs,
            check_finite=finite,
            baseline=to_beat,
            baseline_epochs=grace,
            stopping_threshold=good,
            divergence_threshold=bad,
        )
        for checks, epochs, finite, to_beat, grace, good, bad in columns
    ]


def per_metric(argument: str, value: T | Sequence[T], metrics: Sequence[str]) -> list[T]:
    """One value for each monitored metric: a single one is used for all.

    Raises
    ------
    InvalidOptionError
        If there are several, but not as many as metrics.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * len(metrics)
    if len(value) != len(metrics):
        raise InvalidOptionError(
            f"Expected {argument} to be one value, or {len(metrics)} for the {len(metrics)} "
            f"monitored metrics ({quote_names(metrics)}); got {len(value)}."
        )
    return list(value)


def check_stopping_options(
    names: Sequence[str], combine: str, warmup_epochs: int | str, restore_best: bool | str
) -> None:
    """Check arguments that do not belong to a single metric.

    Raises
    ------
    InvalidOptionError
        If a value is not one of its choices.
    """
    if not names or len(set(names)) < len(names):
        raise InvalidOptionError(f"Expected different metrics to monitor; got {list(names)}.")
    if combine not in ("any", "all"):
        raise InvalidOptionError(f"Expected combine to be 'any' or 'all'; got {combine!r}.")
    if warmup_epochs != "kl" and (isinstance(warmup_epochs, str) or warmup_epochs < 0):
        raise InvalidOptionError(
            f"Expected warmup_epochs to be a number of epochs or 'kl'; got {warmup_epochs!r}."
        )
    if isinstance(restore_best, str) and restore_best not in names:
        raise InvalidOptionError(
            "Expected restore_best to be True, False or a monitored metric "
            f"({quote_names(names)}); "
            f"got {restore_best!r}.{did_you_mean(restore_best, names)}"
        )

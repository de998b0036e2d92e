"""Rules by which a metric stops a run: its patience, bounds and baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, cast

from cellvae.core.log import logger
from cellvae.train.callbacks.early_stopping.criteria import StoppingCriteria, per_metric
from cellvae.train.callbacks.monitored_metric import MonitoredMetric

Direction = Literal["min", "max", "auto"]


class StopReason(StrEnum):
    """Why early stopping ended a run; the members that Lightning has are named as there."""

    NOT_STOPPED = "not_stopped"
    NON_FINITE_METRIC = "non_finite_metric"
    STOPPING_THRESHOLD = "stopping_threshold"
    DIVERGENCE_THRESHOLD = "divergence_threshold"
    PATIENCE_EXHAUSTED = "patience_exhausted"
    ALL_METRICS = "all_metrics"


@dataclass(frozen=True, kw_only=True)
class StopDecision:
    """Decision to stop a run: its reason, and a sentence for the log."""

    reason: StopReason
    text: str


class StoppingRule:
    """Rule by which one metric stops a run.

    Parameters
    ----------
    monitored
        The metric.
    criteria
        Criteria of the metric.
    verbose
        Whether every improvement, and every check without one, is logged.
    """

    def __init__(
        self, monitored: MonitoredMetric, criteria: StoppingCriteria, *, verbose: bool = False
    ) -> None:
        self.monitored = monitored
        self.criteria = criteria
        self.verbose = verbose
        self.clear()

    def clear(self) -> None:
        """Reset all counters."""
        self.monitored.clear()
        self.restart()
        self.last_check: int | None = None

    def restart(self) -> None:
        """Count from the beginning; what was best stays."""
        self.wait_count = self.wait_epochs = 0
        self.decision: StopDecision | None = None

    def update(self, value: float, epoch: int, *, n_epochs_before: int, warming_up: bool) -> bool:
        """Check the value of one epoch; returns whether it is the best so far.

        The order of the questions is Lightning's: is it a number, good enough, hopeless, better?

        Parameters
        ----------
        value
            Value of the metric.
        epoch
            Number of the epoch, as the history counts it.
        n_epochs_before
            How many epochs of the run came before it.
        warming_up
            Whether the epoch is one of the first, which are not compared.
        """
        name = self.monitored.name
        since = 1 if self.last_check is None else max(1, epoch - self.last_check)
        self.last_check = epoch
        self.decision = None
        if not math.isfinite(value) and self.criteria.check_finite:
            self.decision = StopDecision(
                reason=StopReason.NON_FINITE_METRIC, text=f"{name} was {value} in epoch {epoch}"
            )
            return False
        if warming_up:
            return False
        is_best = self.monitored.is_best(value) and not self.is_hopeless(value)
        if is_best:
            self.monitored.set_best(value, epoch)
        self.decision = self.check_thresholds(value) or self.count_check(
            value, epoch, since, n_epochs_before
        )
        return is_best

    def check_thresholds(self, value: float) -> StopDecision | None:
        """Verdict on a value that is past one of the two thresholds."""
        name, good = self.monitored.name, self.criteria.stopping_threshold
        better, worse = ("<", ">") if self.monitored.mode == "min" else (">", "<")
        if good is not None and self.monitored.improvement(value, good) > 0:
            return StopDecision(
                reason=StopReason.STOPPING_THRESHOLD,
                text=f"{name} reached the stopping threshold: {value:.4f} {better} {good:g}",
            )
        if self.is_hopeless(value):
            bound = self.criteria.divergence_threshold
            return StopDecision(
                reason=StopReason.DIVERGENCE_THRESHOLD,
                text=f"{name} is beyond the divergence threshold: {value:.4f} {worse} {bound:g}",
            )
        return None

    def is_hopeless(self, value: float) -> bool:
        """Whether a value is worse than the divergence threshold."""
        bound = self.criteria.divergence_threshold
        if bound is None:
            return False
        return value > bound if self.monitored.mode == "min" else value < bound

    def count_check(
        self, value: float, epoch: int, since: int, n_epochs_before: int
    ) -> StopDecision | None:
        """Count a check, and the epochs since the one before, if it is no improvement."""
        graced = n_epochs_before < self.criteria.baseline_epochs
        baseline = None if graced else self.criteria.baseline
        before = self.monitored.reference if baseline is None else baseline
        name = self.monitored.name
        if self.monitored.counts_as_improvement(value, baseline):
            self.wait_count = self.wait_epochs = 0
            if self.verbose:
                change = "is" if before is None else f"improved from {before:.4f} to"
                logger.info(
                    "Epoch %d: %s %s %.4f; nothing to wait for.", epoch, name, change, value
                )
            return None
        self.wait_count += 1
        self.wait_epochs += since
        in_epochs = self.criteria.patience_epochs is not None
        waited = self.wait_epochs if in_epochs else self.wait_count
        limit = self.criteria.patience_epochs if in_epochs else self.criteria.patience
        unit = "epochs" if in_epochs else "checks"
        if self.verbose:
            logger.info(
                "Epoch %d: %s is %.4f, no better than %.4f; waited for %d of %d %s.",
                *(epoch, name, value, math.nan if before is None else before),
                *(waited, limit, unit),
            )
        if limit is None or waited < limit:
            return None
        by = f" by more than {self.monitored.min_delta:g}" if self.monitored.min_delta else ""
        did = "improved" if baseline is None else f"beaten the baseline of {baseline:g}"
        return StopDecision(
            reason=StopReason.PATIENCE_EXHAUSTED,
            text=f"{name} had not {did}{by} for {waited} {unit if waited != 1 else unit[:-1]}",
        )

    def state_dict(self) -> dict[str, Any]:
        """Counters, as plain numbers."""
        decision = self.decision
        return {
            "wait_count": self.wait_count,
            "wait_epochs": self.wait_epochs,
            "last_check": self.last_check,
            "best_score": self.monitored.best,
            "best_epoch": self.monitored.best_epoch,
            "reference": self.monitored.reference,
            "verdict": None if decision is None else [str(decision.reason), decision.text],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the counters of a checkpoint."""
        self.wait_count, self.wait_epochs = state["wait_count"], state["wait_epochs"]
        self.last_check = state["last_check"]
        self.monitored.best, self.monitored.best_epoch = state["best_score"], state["best_epoch"]
        self.monitored.reference = state["reference"]
        saved = state["verdict"]
        self.decision = (
            None if saved is None else StopDecision(reason=StopReason(saved[0]), text=saved[1])
        )


def make_rules(
    metrics: Sequence[str],
    mode: Direction | Sequence[Direction],
    min_delta: float | Sequence[float],
    criteria: Sequence[StoppingCriteria],
    *,
    verbose: bool,
) -> list[StoppingRule]:
    """One rule for each metric, with its direction, least change and criteria."""
    directions = per_metric("mode", cast("Any", mode), metrics)
    deltas = per_metric("min_delta", min_delta, metrics)
    return [
        StoppingRule(MonitoredMetric(metric, direction, delta), criterion, verbose=verbose)
        for metric, direction, delta, criterion in zip(
            metrics, directions, deltas, criteria, strict=True
        )
    ]


def combine_rules(
    rules: Sequence[StoppingRule], combine: Literal["any", "all"]
) -> StopDecision | None:
    """Decision of all rules: with `"any"` the first, with `"all"` one if every rule has one."""
    found = [rule.decision for rule in rules if rule.decision is not None]
    if not found or combine == "all" and len(found) < len(rules):
        return None
    if combine == "any" or len(rules) == 1:
        return found[0]
    return StopDecision(reason=StopReason.ALL_METRICS, text="; ".join(v.text for v in found))

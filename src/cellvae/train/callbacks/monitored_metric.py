"""A metric that a callback follows: its direction, and its best value so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from cellvae.errors import TrainingError, did_you_mean
from cellvae.train.options.metric_names import Mode, canonical_name, is_validation, metric_mode


class MonitoredMetric:
    """A metric, its direction, and its best value so far.

    Parameters
    ----------
    name
        Name of the metric; `validation_elbo` finds `elbo_validation`, and the other way round.
    mode
        Whether lower (`"min"`) or higher (`"max"`) is better; `"auto"` infers it from the name.
    min_delta
        Change that counts as an improvement must be larger than this.
    """

    def __init__(
        self, name: str, mode: Literal["min", "max", "auto"] = "auto", min_delta: float = 0.0
    ) -> None:
        self.name = name
        self.mode: Mode = metric_mode(name, mode)
        self.min_delta = abs(min_delta)
        self.clear()

    def clear(self) -> None:
        """Reset the best value for a new run."""
        self.best: float | None = None
        self.reference: float | None = None
        self.best_epoch: int | None = None
        self.seen: Tensor | None = None

    def is_fresh(self, validated: bool) -> bool:
        """Whether the metric has a new value at the end of this epoch, by its name."""
        return validated or not is_validation(self.name)

    def is_logged(self, metrics: Mapping[str, Tensor]) -> bool:
        """Whether the metric has a value, be it a new one or not."""
        return canonical_name(self.name, metrics) in metrics

    def is_refreshed(self, metrics: Mapping[str, Tensor]) -> bool:
        """Whether the metric was logged since the last call, by any hook.

        Lightning shows the last value of a metric until there is another, which has memory of its
        own: as long as the last is held here, a new one cannot lie where it lies.
        """
        now = metrics.get(canonical_name(self.name, metrics))
        before, self.seen = self.seen, now
        return now is not None and (before is None or now.data_ptr() != before.data_ptr())

    def read(self, metrics: Mapping[str, Tensor]) -> float:
        """Value of the metric now.

        Raises
        ------
        TrainingError
            If nothing has logged it.
        """
        name = canonical_name(self.name, metrics)
        if name not in metrics:
            close = did_you_mean(name, metrics)
            raise TrainingError(
                f"Nothing logged '{name}', which is monitored.{close} "
                f"Logged: {', '.join(sorted(metrics))}."
            )
        return float(metrics[name])

    def improvement(self, value: float, other: float | None) -> float:
        """How much better a value is than another; a value that is not finite never is."""
        if not math.isfinite(value):
            return -math.inf
        if other is None:
            return math.inf
        return other - value if self.mode == "min" else value - other

    def is_best(self, value: float) -> bool:
        """Whether a value is better than all before, by however little."""
        return self.improvement(value, self.best) > 0

    def set_best(self, value: float, epoch: int) -> None:
        """Make a value the best so far."""
        self.best, self.best_epoch = value, epoch

    def counts_as_improvement(self, value: float, baseline: float | None = None) -> bool:
        """Whether a value is better by more than `min_delta` than the last one that was.

        With a baseline, it is compared with that instead, which never moves.
        """
        against = self.reference if baseline is None else baseline
        if self.improvement(value, against) > self.min_delta:
            self.reference = value
            return True
        return False

"""Search of a learning rate: the loss while the rate grows from tiny to huge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cellvae.contracts import Module, Rows
from cellvae.core.options import check_value
from cellvae.core.seeds import isolated_rng
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.train.options.adversarial_options import AdversarialOptions
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
)
from cellvae.train.search.dry_run import DryRun, cycle_blocks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Growth = Literal["exponential", "linear"]

MIN_STEPS = 10
"""Losses that a search needs."""
SMOOTHING = 0.9
"""Weight of the past in the smoothed loss."""


@dataclass(frozen=True, kw_only=True)
class LearningRateSearch:
    """Result of a search of a learning rate.

    Parameters
    ----------
    lrs
        Learning rates that were tried, in their order.
    losses
        Loss of a batch before the step with each rate; nats per cell.
    smoothed
        Losses averaged over the steps before.
    suggestion
        Rate at which the smoothed loss fell most steeply, over the logarithm of the rate.
    stopped_early
        Whether the search ended before the largest rate since the loss grew too much.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float
    stopped_early: bool

    def plot(self, ax: Axes | None = None) -> Axes:
        """Loss by learning rate, the suggestion marked."""
        from cellvae.plotting.learning_rate import learning_rate_curve

        return learning_rate_curve(self.lrs, self.losses, self.smoothed, self.suggestion, ax)


def find_learning_rate(
    module: Module[Any],
    rows: Rows[Any],
    cells: NDArray[np.int64],
    *,
    seed: int,
    batch_size: int = 128,
    optimizer: OptimizerOptions | None = None,
    adversarial: AdversarialOptions | None = None,
    min_lr: float = 1e-6,
    max_lr: float = 1.0,
    num_steps: int = 100,
    mode: Growth = "exponential",
    early_stop_threshold: float | None = 4.0,
    kl_weight: float = 1.0,
    plot: str | Path | None = None,
    device: torch.device | str | None = None,
) -> LearningRateSearch:
    """Suggest a learning rate by training a copy of a module while the rate grows.

    The module, its flags and the global random state do not change.

    Parameters
    ----------
    module
        The mathematics of the model, as training would start from it.
    rows, cells
        All cells, and the indices of those to train on.
    seed
        Seed of the order of the cells and of all noise.
    batch_size
        Cells of a batch.
    optimizer
        Options of the optimizer; its own rate is not used.
    adversarial
        Options of an adversarial classifier, whose losses have full weight by default.
    min_lr, max_lr
        First and last rate.
    num_steps
        Rates that are tried, one step each; there may be more than steps of an epoch.
    mode
        Whether the rate grows by a factor or by a difference.
    early_stop_threshold
        The search ends where the smoothed loss is this many times its smallest value; None for
        never.
    kl_weight
        Weight of the KL term.
    plot
        File for a figure.
    device
        Device; None for that of the module.

    Raises
    ------
    InvalidOptionError
        If a number is out of its range.
    TrainingError
        If there were too few losses, or the loss never fell.
    """
    check_value("mode", mode, Growth)
    check_learning_rate_arguments(min_lr, max_lr, num_steps, early_stop_threshold)
    rates = learning_rates(min_lr, max_lr, num_steps, mode)
    losses: list[float] = []
    stopped = False
    with isolated_rng(seed, "learning rate search"), torch.enable_grad():
        trial = DryRun(
            module,
            optimizer or OptimizerOptions(),
            adversarial=adversarial,
            seed=seed,
            kl_weight=kl_weight,
            device=device,
        )
        blocks = cycle_blocks(rows, cells, batch_size=batch_size, seed=seed)
        for rate, block in zip(rates, islice(blocks, num_steps), strict=True):
            loss = float(trial.step(block, rate))
            if not math.isfinite(loss) or has_exploded([*losses, loss], early_stop_threshold):
                stopped = True
                break
            losses.append(loss)
    tried = rates[: len(losses)]
    averages = debiased_ema(losses)
    found = LearningRateSearch(
        lrs=tuple(tried),
        losses=tuple(losses),
        smoothed=tuple(averages),
        suggestion=steepest_descent(tried, averages),
        stopped_early=stopped,
    )
    if plot is not None:
        save_plot(found, Path(plot).expanduser())
    return found


def check_learning_rate_arguments(
    min_lr: float, max_lr: float, num_steps: int, threshold: float | None
) -> None:
    """Check the arguments of a search of a learning rate.

    Raises
    ------
    InvalidOptionError
        If one is out of its range.
    """
    if not 0 < min_lr < max_lr < math.inf:
        raise InvalidOptionError(
            f"Expected 0 < min_lr < max_lr; got min_lr={min_lr:g} and max_lr={max_lr:g}."
        )
    if num_steps < MIN_STEPS:
        raise InvalidOptionError(f"Expected num_steps to be at least {MIN_STEPS}; got {num_steps}.")
    if threshold is not None and not threshold > 1:
        raise InvalidOptionError(
            f"Expected early_stop_threshold to be above 1, or None; got {threshold:g}."
        )


def learning_rates(min_lr: float, max_lr: float, num_steps: int, mode: Growth) -> list[float]:
    """Learning rates from the first to the last."""
    if mode == "linear":
        return np.linspace(min_lr, max_lr, num_steps).tolist()
    return np.geomspace(min_lr, max_lr, num_steps).tolist()


def debiased_ema(losses: Sequence[float]) -> list[float]:
    """Average of each loss and those before it, with weights that fade; the first counts fully."""
    average, averages = 0.0, []
    for i, loss in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        averages.append(average / (1 - SMOOTHING ** (i + 1)))
    return averages


def has_exploded(losses: Sequence[float], threshold: float | None) -> bool:
    """Whether the smoothed loss has grown too far above its smallest value; it may be negative."""
    if threshold is None:
        return False
    averages = debiased_ema(losses)
    best = min(averages)
    return averages[-1] > best + (threshold - 1) * abs(best)


def steepest_descent(rates: Sequence[float], averages: Sequence[float]) -> float:
    """Rate at which the smoothed loss falls most steeply over the logarithm of the rate.

    Raises
    ------
    TrainingError
        If there are too few losses, or it never falls.
    """
    if len(rates) < MIN_STEPS:
        raise TrainingError(
            f"Expected at least {MIN_STEPS} finite losses to suggest a learning rate; got "
            f"{len(rates)} before the loss grew too much. Lower min_lr, raise num_steps, or give "
            "early_stop_threshold=None."
        )
    slopes = np.gradient(np.asarray(averages), np.log(np.asarray(rates)))
    # The first averages are of few losses, so their slope is mostly noise.
    first = len(rates) // 10
    lowest = first + int(np.argmin(slopes[first:]))
    if slopes[lowest] >= 0:
        raise TrainingError(
            f"The loss fell at no learning rate from {rates[0]:g} to {rates[-1]:g}. Give another "
            "range with min_lr and max_lr, more num_steps, or a model that is not trained yet."
        )
    return float(rates[lowest])


def save_plot(found: LearningRateSearch, path: Path) -> None:
    """Write the figure of a search, without opening a window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    found.plot(figure.subplots())
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)

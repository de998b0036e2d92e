"""Calibration of a model: how many measured counts are within intervals of its draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cellvae.errors import InvalidOptionError
from cellvae.evaluation.ppc_metrics import IntervalCoverage, Ranks
from cellvae.inference.cell_pass import CellPass, inference_mode
from cellvae.inference.criticism.checked_output import CheckedOutput
from cellvae.inference.criticism.ppc_statistics import iter_predictive_draws
from cellvae.inference.protocols import DecoderModel

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Default levels of the intervals whose coverage is computed."""

LOWER_QUANTILES = (0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175)
QUANTILES = (*LOWER_QUANTILES, *(round(1 - q, 3) for q in reversed(LOWER_QUANTILES)))
"""Default bounds of the intervals of the calibration error, as in scvi-tools."""


def check_levels(levels: Sequence[float]) -> list[float]:
    """Levels of intervals, as floats.

    Raises
    ------
    InvalidOptionError
        If there are none, or one is not between 0 and 1.
    """
    values = [float(level) for level in levels]
    if not values or min(values) <= 0 or max(values) >= 1:
        raise InvalidOptionError(f"Expected levels of intervals above 0 and below 1; got {values}.")
    return values


def check_quantiles(quantiles: Sequence[float] | None) -> NDArray[np.float64]:
    """Quantiles that bound intervals, as an array; those of scvi-tools for None.

    Raises
    ------
    InvalidOptionError
        If they are not an even number of ascending quantiles from 0 to 1.
    """
    bounds = np.asarray(QUANTILES if quantiles is None else quantiles, dtype=float)
    n = len(bounds) // 2 if bounds.ndim == 1 else 0
    ascending = n and len(bounds) == 2 * n and (np.diff(bounds) > 0).all()
    if not ascending or bounds[0] < 0 or bounds[-1] > 1:
        raise InvalidOptionError(
            "Expected an even number of rising quantiles from 0 to 1 in confidence_intervals, "
            f"such as [0.05, 0.25, 0.75, 0.95]; got {quantiles!r:.80}."
        )
    return bounds


def randomized_error(ranks: Ranks, bounds: NDArray[np.float64]) -> float:
    """Mean over intervals of the squared difference of coverage and level, ties broken at random.

    Parameters
    ----------
    ranks
        Ranks of measured counts among draws.
    bounds
        Quantiles that bound the intervals, the outermost first.
    """
    n = len(bounds) // 2
    coverage, level = (x[::-1][:n] - x[:n] for x in (ranks.below(bounds), bounds))
    return float(np.mean((coverage - level) ** 2))


def interval_errors(
    models: Mapping[str, DecoderModel],
    passes: Mapping[str, CellPass],
    output: CheckedOutput,
    n_samples: int,
    quantiles: Sequence[float],
) -> dict[str, float]:
    """Calibration error of each model by name, from one pass over the cells for each.

    Intervals are between quantiles of the draws of each count, as in scvi-tools.
    """
    errors = {}
    for name, model in models.items():
        coverage = IntervalCoverage(quantiles)
        cell_pass = passes[name]
        with inference_mode(model):
            for positions, batch in cell_pass.iter_batches():
                measured, mask = output.observed_values(
                    model.module, batch, cell_pass.cells[positions]
                )
                draws = iter_predictive_draws(model.module, batch, n_samples, output.name)
                coverage.add(measured, torch.stack([*draws]), mask)
        errors[name] = coverage.error()
    return errors

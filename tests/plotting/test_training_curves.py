"""Curves of a training run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellvae.plotting import training_curves
from cellvae.plotting.search_curves import search_curves
from cellvae.plotting.training_curves import metric_curves


@pytest.mark.parametrize("n_epochs", [2, 4, 400])
def test_ticks_are_at_whole_epochs(n_epochs: int) -> None:
    epochs = np.arange(n_epochs)
    table = pd.DataFrame({"elbo_train": 1.0 / (1 + epochs), "elbo_validation": 2.0}, index=epochs)
    history = pd.DataFrame({"trial": "a", "epoch": epochs, "elbo_train": table["elbo_train"]})
    axes = [
        *training_curves(table).axes,
        *metric_curves(table, ["elbo_train"]).axes,
        search_curves(history, "elbo_train"),
    ]
    for ax in axes:
        ax.figure.canvas.draw()
        ticks = ax.get_xticks()
        assert np.array_equal(ticks, ticks.round())
        assert ax.get_xlabel() == "Epoch"

"""Plots of predictive checks draw what they are given."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from cellvae.plotting import calibration_curve, ppc_scatter


@pytest.fixture(autouse=True)
def closed() -> object:
    yield
    plt.close("all")


def test_a_scatter_has_a_dot_for_all_that_both_know() -> None:
    _, ax = plt.subplots()
    measured, drawn = np.array([1.0, 2.0, np.nan, 4.0]), np.array([1.5, np.inf, 1.0, 3.0])
    assert ppc_scatter(measured, drawn, ax, title="Zeros", label="scVI") is ax
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[1.0, 1.5], [4.0, 3.0]])
    assert ax.get_title(loc="left") == "Zeros"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["scVI"]
    assert isinstance(ppc_scatter(np.array([np.nan]), np.array([1.0])), Axes)


def test_a_curve_goes_through_its_points() -> None:
    levels, coverage = np.array([0.25, 0.5, 0.75]), np.array([0.3, 0.5, 0.7])
    ax = calibration_curve(levels, coverage)
    np.testing.assert_allclose(ax.lines[1].get_xydata(), np.stack([levels, coverage], axis=1))
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [1, 1]])
    assert ax.get_legend() is None
    assert calibration_curve(levels, coverage, ax, label="a") is ax

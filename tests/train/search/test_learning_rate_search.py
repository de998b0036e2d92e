"""The learning rate that is suggested, against brute force; and that nothing is changed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from anndata import read_h5ad
from torch import Tensor, nn

from cellvae.contracts import Loss, Module
from cellvae.data import Split
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.model import SCVI
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
)
from cellvae.train.search.learning_rate_search import debiased_ema, find_learning_rate

SGD = OptimizerOptions(
    optimizer="Custom",
    optimizer_creator=lambda parameters: torch.optim.SGD(parameters, lr=123.0),
)
UPHILL = OptimizerOptions(
    optimizer="Custom",
    optimizer_creator=lambda parameters: torch.optim.SGD(parameters, lr=1.0, maximize=True),
)


class Numbers(NamedTuple):
    cells: Tensor


class NumberRows:
    """Cells that are their own numbers."""

    def __len__(self) -> int:
        return 40

    def take(self, cells: Tensor) -> Numbers:
        return Numbers(cells)


class Parabola(Module[Numbers]):
    """Loss that is half the square of one weight times a curvature, plus an offset."""

    def __init__(self, curvature: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
        self.curvature, self.offset = curvature, offset

    def loss(self, batch: Numbers, kl_weight: Tensor) -> Loss:
        value = 0.5 * self.curvature * self.weight**2 + self.offset
        cells = value.expand(len(batch.cells))
        return Loss(value, {"error": cells}, {"kl_local": torch.zeros_like(cells)}, torch.zeros(()))


def search(module: Module[Any], **kwargs: Any) -> Any:
    cells = np.arange(40, dtype=np.int64)
    return find_learning_rate(module, NumberRows(), cells, **{"seed": 0, "batch_size": 8} | kwargs)


@pytest.mark.parametrize("curvature", [0.5, 10.0, 300.0])
@pytest.mark.parametrize("offset", [0.0, -500.0])
def test_the_curve_is_that_of_gradient_descent(curvature: float, offset: float) -> None:
    found = search(Parabola(curvature, offset=offset), optimizer=SGD, early_stop_threshold=None)
    rates = np.geomspace(1e-6, 1.0, 100)
    factors = np.concatenate([[1.0], np.cumprod(1 - rates * curvature)])[:100]
    losses = 0.5 * curvature * (3 * factors) ** 2 + offset
    n = len(found.losses)
    assert found.lrs == pytest.approx(rates[:n])
    assert found.losses == pytest.approx(losses[:n], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("curvature", [0.5, 10.0, 300.0])
def test_the_suggestion_is_in_the_right_decade(curvature: float) -> None:
    # One step reaches the bottom at 1/curvature, and beyond 2/curvature the loss grows; with
    # many steps of growing rates most is gained a little before.
    found = search(Parabola(curvature), optimizer=SGD, max_lr=100.0)
    assert 0.1 / curvature < found.suggestion < 2 / curvature
    assert found.stopped_early


def test_smoothing_by_brute_force() -> None:
    losses = np.random.default_rng(0).normal(size=20).tolist()
    for i, value in enumerate(debiased_ema(losses)):
        weights = 0.9 ** np.arange(i, -1, -1)
        assert value == pytest.approx((weights * losses[: i + 1]).sum() / weights.sum())


def test_linear_rates_and_more_steps_than_an_epoch_has() -> None:
    found = search(
        Parabola(1.0), optimizer=SGD, mode="linear", min_lr=0.01, max_lr=0.5, num_steps=50
    )
    assert len(found.lrs) == 50 > 40 / 8
    assert found.lrs == pytest.approx(np.linspace(0.01, 0.5, 50))


def test_nothing_is_changed(module: Any, rows: Any, split: Split) -> None:
    module.eval()
    module.decoder.train()
    module.px_r.requires_grad_(False)
    module.px_r.grad = torch.ones_like(module.px_r)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    modes = [m.training for m in module.modules()]
    torch.manual_seed(5)
    np.random.seed(5)
    generators = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    found = find_learning_rate(module, rows, split.train, seed=0, batch_size=10)
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert [m.training for m in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()].count(False) == 1
    assert [p.grad is None for p in module.parameters()].count(False) == 1
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])  # type: ignore[index]
    with torch.no_grad():
        again = find_learning_rate(module, rows, split.train, seed=0, batch_size=10)
    assert again == found


def test_a_search_with_too_little_to_see_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match="fell at no learning rate from 1e-06"):
        search(Parabola(1.0), optimizer=UPHILL, early_stop_threshold=None)
    with pytest.raises(TrainingError, match="at least 10 finite losses.*Lower min_lr"):
        search(Parabola(1.0), optimizer=SGD, min_lr=10.0, max_lr=1000.0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"min_lr": 1.0, "max_lr": 0.1}, "0 < min_lr < max_lr; got min_lr=1 and max_lr=0.1"),
        ({"num_steps": 5}, "num_steps to be at least 10; got 5"),
        ({"mode": "exponentially"}, "Did you mean 'exponential'"),
        ({"early_stop_threshold": 0.5}, "early_stop_threshold to be above 1, or None; got 0.5"),
    ],
)
def test_numbers_out_of_range_are_told(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        search(Parabola(1.0), **kwargs)


def test_the_figure_shows_curve_and_suggestion(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    path = tmp_path / "figures" / "lr.png"
    found = search(Parabola(10.0), optimizer=SGD, plot=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    ax = found.plot(Figure().subplots())
    raw, smooth, mark = ax.lines
    assert raw.get_ydata() == pytest.approx(found.losses)
    assert smooth.get_ydata() == pytest.approx(found.smoothed)
    assert list(mark.get_xdata()) == [found.suggestion] * 2
    assert ax.get_xscale() == "log"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_suggestion_for_real_cells_is_one_that_people_use(shared_data: Path, seed: int) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")
    adata = adata[:500, np.asarray(adata.X.sum(0)).ravel().argsort()[-500:]].copy()
    SCVI.setup_anndata(adata)
    torch.manual_seed(seed)
    model = SCVI(adata, n_hidden=32, n_latent=5)
    found = find_learning_rate(model.module, model.rows_of_model(), np.arange(500), seed=seed)
    assert 1e-5 < found.suggestion < 1e-1
    assert math.isfinite(found.losses[-1])

"""Weight of the KL term by epoch and by step."""

from __future__ import annotations

import pytest

from cellvae.errors import TrainingWarning
from cellvae.train.options.kl_warmup import plan_warmup
from cellvae.train.options.optimizer_options import (
    WarmupOptions,
)


@pytest.mark.parametrize("max_epochs", [1, 2, 7, 30, 399, 400, 401, 800])
def test_the_default_reaches_its_maximum_within_the_run(max_epochs: int) -> None:
    warmup = plan_warmup(WarmupOptions(), max_epochs, 10)
    weights = [warmup.weight_at(step // 10, step) for step in range(10 * max_epochs)]
    assert weights[0] == 0.0
    assert weights == sorted(weights)
    half = len(weights) // 2
    assert 0.39 < weights[half // 2] < 0.61
    assert set(weights[half + 10 :]) <= {1.0}
    assert weights[-1] == 1.0


def test_the_default_takes_400_epochs_at_most() -> None:
    warmup = plan_warmup(WarmupOptions(), 2000, 10)
    assert (warmup.weight_at(399, 0), warmup.weight_at(400, 0)) == (399 / 400, 1.0)


def test_epochs_that_are_given_are_those_of_scvi_tools() -> None:
    warmup = plan_warmup(WarmupOptions(n_epochs=4, maximum=0.8, minimum=0.2), 10, 10)
    got = [warmup.weight_at(epoch, 0) for epoch in range(6)]
    assert got == pytest.approx([0.2, 0.35, 0.5, 0.65, 0.8, 0.8])


def test_steps_count_where_epochs_are_none() -> None:
    warmup = plan_warmup(WarmupOptions(n_epochs=None, n_steps=8), 10, 10)
    assert warmup.by_step
    assert [warmup.weight_at(0, step) for step in (0, 2, 8, 100)] == [0.0, 0.25, 1.0, 1.0]


def test_steps_alone_are_enough() -> None:
    assert plan_warmup(WarmupOptions(n_steps=8), 10, 10).by_step


def test_epochs_go_before_steps_where_both_are_given() -> None:
    warmup = plan_warmup(WarmupOptions(n_epochs=4, n_steps=8), 10, 10)
    assert not warmup.by_step
    assert warmup.weight_at(2, 0) == 0.5


@pytest.mark.parametrize("options", [WarmupOptions(n_epochs=None), WarmupOptions(n_epochs=0)])
def test_without_warmup_the_weight_is_the_maximum(options: WarmupOptions) -> None:
    assert plan_warmup(options, 10, 10).weight_at(0, 0) == 1.0


def test_a_warmup_longer_than_the_run_is_told() -> None:
    with pytest.warns(TrainingWarning, match=r"only reach 0\.0725 of 1: n_epochs_kl_warmup=400"):
        plan_warmup(WarmupOptions(n_epochs=400), 30, 10)
    with pytest.warns(TrainingWarning, match=r"only reach 0\.299 of 1: n_steps_kl_warmup=1000"):
        plan_warmup(WarmupOptions(n_steps=1000), 30, 10)


def test_a_warmup_as_long_as_the_run_is_not_told() -> None:
    assert plan_warmup(WarmupOptions(n_epochs=400), 400, 10).weight_at(399, 0) == 399 / 400


def test_the_weight_never_falls_below_what_an_earlier_run_reached() -> None:
    warmup = plan_warmup(WarmupOptions(), 11, 10, floor=0.5)
    assert [warmup.weight_at(epoch, 0) for epoch in (0, 5, 7, 10)] == [0.5, 1.0, 1.0, 1.0]

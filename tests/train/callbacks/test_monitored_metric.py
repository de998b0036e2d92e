"""A metric that is followed: its value, its best, and whether it is new."""

from __future__ import annotations

import pytest
import torch

from cellvae.errors import TrainingError
from cellvae.train.callbacks.monitored_metric import MonitoredMetric


def test_it_is_read_under_either_spelling_and_a_typo_is_told() -> None:
    metrics = {"elbo_validation": torch.tensor(3.0), "train_loss": torch.tensor(2.0)}
    assert MonitoredMetric("validation_elbo").read(metrics) == 3.0
    assert MonitoredMetric("elbo_validation").read(metrics) == 3.0
    assert not MonitoredMetric("elbo_train").is_logged(metrics)
    with pytest.raises(TrainingError, match="'elbo_valdation'.*Did you mean 'elbo_validation'"):
        MonitoredMetric("elbo_valdation").read(metrics)


def test_a_value_is_new_once_even_if_it_is_the_same_number() -> None:
    monitored, value = MonitoredMetric("loss"), torch.tensor(1.0)
    assert not monitored.is_refreshed({})
    assert monitored.is_refreshed({"loss": value})
    # Lightning shows views of the tensor that it keeps.
    assert not monitored.is_refreshed({"loss": value.detach()})
    for _ in range(100):
        value = torch.tensor(1.0)
        assert monitored.is_refreshed({"loss": value})
        assert not monitored.is_refreshed({"loss": value.detach()})


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_an_improvement_is_larger_than_its_least_size(mode: str, sign: int) -> None:
    monitored = MonitoredMetric("script", mode, 0.5)  # type: ignore[arg-type]
    found = [monitored.counts_as_improvement(sign * v) for v in (4.0, 3.5, 3.25, 3.0, 2.0)]
    assert found == [True, False, True, False, True]
    assert not monitored.counts_as_improvement(float("nan"))
    assert not monitored.counts_as_improvement(sign * 3.0, baseline=sign * 3.5)
    assert monitored.counts_as_improvement(sign * 2.875, baseline=sign * 3.5)

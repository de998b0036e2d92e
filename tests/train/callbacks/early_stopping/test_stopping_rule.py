"""What one metric says about stopping, against Lightning's class and against counting by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping

from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.early_stopping.criteria import StoppingCriteria, per_metric
from cellvae.train.callbacks.early_stopping.stopping_rule import (
    StoppingRule,
    StopReason,
    combine_rules,
)
from cellvae.train.callbacks.monitored_metric import MonitoredMetric


def make_rule(mode: str = "min", min_delta: float = 0.0, **criteria: object) -> StoppingRule:
    return StoppingRule(
        MonitoredMetric("script", mode, min_delta),  # type: ignore[arg-type]
        StoppingCriteria(**criteria),  # type: ignore[arg-type]
    )


def stops_at(
    rule: StoppingRule, values: list[float], epochs: list[int] | None = None
) -> int | None:
    """Position of the first value that ends the run."""
    for i, (epoch, value) in enumerate(zip(epochs or itertools.count(), values, strict=False)):
        rule.update(value, epoch, n_epochs_before=epoch, warming_up=False)
        if rule.decision is not None:
            return i
    return None


@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_stops_where_lightnings_class_does_and_for_the_same_reason(mode: str) -> None:
    random = np.random.default_rng(0)
    reasons = set()
    for _ in range(300):
        values = random.normal(size=12).round(1).tolist()
        if random.random() < 0.2:
            values[random.integers(12)] = random.choice([math.nan, math.inf, -math.inf])
        criteria = {
            "patience": int(random.integers(1, 5)),
            "check_finite": bool(random.random() < 0.9),
            "stopping_threshold": random.choice([None, -1.8 if mode == "min" else 1.8]),
            "divergence_threshold": random.choice([None, 1.8 if mode == "min" else -1.8]),
        }
        min_delta = float(random.choice([0.0, 0.25]))
        ours = make_rule(mode, min_delta, **criteria)
        theirs = LightningEarlyStopping("script", min_delta=min_delta, mode=mode, **criteria)
        if not criteria["check_finite"]:
            # An infinite best is none in ours: no later value could be better.
            values = [value if math.isfinite(value) else math.nan for value in values]
        stopped = stops_at(ours, values)
        answers = [
            theirs._evaluate_stopping_criteria(torch.tensor(value, dtype=torch.float64))[0]
            for value in values[: 12 if stopped is None else stopped + 1]
        ]
        assert answers == [False] * (len(answers) - 1) + [stopped is not None]
        if stopped is not None and "stopping_reason" in vars(theirs):
            assert ours.decision is not None
            assert theirs.stopping_reason.name == ours.decision.reason.name
            reasons.add(ours.decision.reason)
    assert len(reasons) in (0, 4)


def test_patience_in_epochs_counts_those_without_checks_too() -> None:
    values, epochs = [3.0, 4.0, 4.0, 4.0, 4.0], [9, 19, 29, 39, 49]
    assert stops_at(make_rule(patience=3), values, epochs) == 3
    assert stops_at(make_rule(patience=1, patience_epochs=20), values, epochs) == 2
    assert stops_at(make_rule(patience=1, patience_epochs=21), values, epochs) == 3


def test_patience_in_epochs_is_patience_in_checks_where_every_epoch_has_one() -> None:
    random = np.random.default_rng(1)
    for _ in range(100):
        values = random.normal(size=10).round(1).tolist()
        patience = int(random.integers(1, 5))
        found = stops_at(make_rule(patience_epochs=patience), values)
        assert found == stops_at(make_rule(patience=patience), values)


@pytest.mark.parametrize(
    ("values", "criteria", "stop"),
    [
        # Each of the last three is worse than 4.5, though the first was better.
        ([4.0, 5.0, 5.0, 5.0], {"baseline": 4.5, "patience": 3}, 3),
        # All beat the baseline: none counts, though none is better than the first.
        ([3.0, 4.0, 4.4, 4.0, 4.4, 4.2], {"baseline": 4.5, "patience": 2}, None),
        # None ever does.
        ([9.0, 8.0, 7.0, 6.0], {"baseline": 4.5, "patience": 3}, 2),
        # During the grace an ordinary improvement is enough.
        ([9.0, 8.0, 7.0, 6.0, 5.0], {"baseline": 4.5, "patience": 2, "baseline_epochs": 3}, 4),
        ([9.0, 8.0, 4.0, 4.2, 4.4], {"baseline": 4.5, "patience": 2, "baseline_epochs": 2}, None),
    ],
)
def test_a_baseline_must_be_beaten_at_every_check(
    values: list[float], criteria: dict[str, float], stop: int | None
) -> None:
    assert stops_at(make_rule(**criteria), values) == stop


def test_thresholds_are_told_with_their_signs() -> None:
    texts = []
    for mode, value in (("min", 9.0), ("max", -9.0)):
        for bound in ("divergence_threshold", "stopping_threshold"):
            rule = make_rule(mode, **{bound: 0.5})
            sign = 1 if bound == "divergence_threshold" else -1
            assert stops_at(rule, [sign * value]) == 0
            assert rule.decision is not None
            texts.append(rule.decision.text)
    assert texts == [
        "script is beyond the divergence threshold: 9.0000 > 0.5",
        "script reached the stopping threshold: -9.0000 < 0.5",
        "script is beyond the divergence threshold: -9.0000 < 0.5",
        "script reached the stopping threshold: 9.0000 > 0.5",
    ]


def test_what_is_not_finite_stops_in_the_first_epochs_too_or_is_no_improvement() -> None:
    rule = make_rule()
    rule.update(math.nan, 0, n_epochs_before=0, warming_up=True)
    assert rule.decision is not None
    assert rule.decision.reason == StopReason.NON_FINITE_METRIC
    rule = make_rule(check_finite=False, patience=2)
    assert stops_at(rule, [5.0, math.nan, math.inf, 4.0]) == 2
    assert rule.monitored.best == 5.0


@pytest.mark.parametrize("patience_epochs", [None, 4])
def test_counting_goes_on_after_any_check(patience_epochs: int | None) -> None:
    random = np.random.default_rng(2)
    values, epochs = random.normal(size=9).round(1).tolist(), list(range(1, 19, 2))
    criteria = {"patience": 9, "patience_epochs": patience_epochs, "baseline": 0.5}
    whole = make_rule(**criteria)
    stops_at(whole, values, epochs)
    for cut in range(9):
        first, second = make_rule(**criteria), make_rule(**criteria)
        stops_at(first, values[:cut], epochs[:cut])
        second.load_state_dict(first.state_dict())
        if first.decision is None:
            stops_at(second, values[cut:], epochs[cut:])
        assert second.state_dict() == whole.state_dict() or first.decision is not None


def test_any_is_the_first_decision_and_all_is_that_of_all_at_once() -> None:
    one, two = make_rule(patience=1), make_rule(patience=1)
    for rule in (one, two):
        rule.update(1.0, 0, n_epochs_before=0, warming_up=False)
    one.update(2.0, 1, n_epochs_before=1, warming_up=False)
    assert combine_rules([one, two], "any") == one.decision
    assert combine_rules([one, two], "all") is None
    two.update(2.0, 1, n_epochs_before=1, warming_up=False)
    both = combine_rules([one, two], "all")
    assert both is not None
    assert both.reason == StopReason.ALL_METRICS
    assert both.text.count("had not improved for 1 check;") == 1
    one.update(0.0, 2, n_epochs_before=2, warming_up=False)
    assert combine_rules([one, two], "all") is None


def test_one_value_is_used_for_all_metrics_and_several_must_be_as_many() -> None:
    assert per_metric("patience", 3, ["a", "b"]) == [3, 3]
    assert per_metric("mode", "min", ["a", "b", "c"]) == ["min", "min", "min"]
    assert per_metric("patience", (3, 4), ["a", "b"]) == [3, 4]
    with pytest.raises(
        InvalidOptionError, match=r"patience to be one value, or 2 for the 2.*'a', 'b'.*; got 3"
    ):
        per_metric("patience", [1, 2, 3], ["a", "b"])


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"patience": -1}, "patience to be at least 0; got -1"),
        ({"patience_epochs": -2}, "patience_epochs to be at least 0; got -2"),
        ({"baseline_epochs": 3}, "baseline for baseline_epochs=3; got none"),
    ],
)
def test_criteria_that_make_no_sense_are_refused(criteria: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        StoppingCriteria(**criteria)  # type: ignore[arg-type]

"""The words of `train`: what is known, what it becomes, and what a typo says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import pytest

from cellvae.errors import InvalidOptionError, UnknownOptionError
from cellvae.train import EarlyStopping
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.options.train_options import TrainOptions


def test_nothing_said_gives_the_defaults_of_scvi_tools() -> None:
    options = parse_train_kwargs({}).options
    assert options == TrainOptions()
    assert (options.loader.batch_size, options.optimizer.lr, options.optimizer.eps) == (
        128,
        1e-3,
        0.01,
    )
    assert options.optimizer.weight_decay == 1e-6
    assert options.early_stopping is None
    assert options.checkpoint_monitor is None


@pytest.mark.parametrize(
    ("given_kwargs", "wrong", "right"),
    [
        ({"early_stoping": True}, "early_stoping", "early_stopping"),
        ({"early_stopping_patince": 3}, "early_stopping_patince", "early_stopping_patience"),
        ({"gradient_clip_value": 1.0}, "gradient_clip_value", "gradient_clip_val"),
        ({"plan_kwargs": {"weight_dcay": 1e-6}}, "weight_dcay", "weight_decay"),
        ({"datasplitter_kwargs": {"batchsize": 3}}, "batchsize", "batch_size"),
        ({"trainer_config": {"max_epoch": 77}}, "max_epoch", "max_epochs"),
        ({"plan_config": {"lr_fctor": 0.1}}, "lr_fctor", "lr_factor"),
    ],
)
def test_a_typo_names_the_right_word(given_kwargs: dict, wrong: str, right: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"'{wrong}'.* Did you mean '{right}'") as info:
        parse_train_kwargs(given_kwargs)
    assert isinstance(info.value, TypeError)


@pytest.mark.parametrize(
    ("given_kwargs", "text"),
    [
        ({"max_epochs": 0}, "max_epochs to be at least 1; got 0"),
        ({"max_epochs": 2.5}, "max_epochs to be a whole number or None; got 2.5"),
        ({"train_size": 1.5}, "train_size to be above 0 and at most 1; got 1.5"),
        ({"plan_kwargs": {"lr": -1}}, "lr to be at least 0.* got -1"),
        ({"plan_kwargs": {"lr": float("nan")}}, "lr to be at least 0.* got nan"),
        (
            {"plan_kwargs": {"optimizer": "adam"}},
            "'Adam', 'AdamW' or 'Custom'; got 'adam'. Did you mean 'Adam'",
        ),
        ({"plan_kwargs": {"optimizer": "Custom"}}, "together with optimizer_creator"),
        (
            {"plan_kwargs": {"min_kl_weight": 2.0}},
            "min_kl_weight to be at most max_kl_weight; got 2 and 1",
        ),
        (
            {"plan_kwargs": {"n_epochs_kl_warmup": -1}},
            "n_epochs_kl_warmup to be at least 0; got -1",
        ),
        ({"plan_kwargs": 3}, "plan_kwargs to be a dictionary"),
        (
            {"early_stopping": True, "early_stopping_mode": "low"},
            "early_stopping_mode to be 'min', 'max' or 'auto'",
        ),
        ({"plan_kwargs": {"compile": "no"}}, "compile to be True or False or None; got 'no'"),
        (
            {"plan_kwargs": {"reduce_lr_on_plateau": "yes"}},
            "reduce_lr_on_plateau to be True or False",
        ),
        ({"enable_checkpointing": "yes"}, "enable_checkpointing to be True or False"),
        ({"callbacks": "checkpoint"}, "callbacks to be Lightning callbacks"),
        ({"callbacks": [EarlyStopping]}, r"Did you mean EarlyStopping\(\)"),
    ],
)
def test_a_value_that_cannot_be_taken_is_refused_with_those_that_can(
    given_kwargs: dict, text: str
) -> None:
    with pytest.raises(InvalidOptionError, match=text):
        parse_train_kwargs(given_kwargs)


def test_words_go_where_they_belong() -> None:
    def creator(parameters: object) -> None: ...

    options = parse_train_kwargs(
        {
            "max_epochs": 7,
            "batch_size": 64,
            "check_val_every_n_epoch": 2,
            "enable_checkpointing": True,
            "checkpointing_monitor": "elbo_train",
            "gradient_clip_val": 0.5,
            "enable_progress_bar": False,
            "datasplitter_kwargs": {
                "drop_last": True,
                "external_indexing": [[0, 1]],
                "pin_memory": True,
            },
            "plan_kwargs": {
                "optimizer": "Custom",
                "optimizer_creator": creator,
                "n_epochs_kl_warmup": 5,
                "max_kl_weight": 0.5,
                "reduce_lr_on_plateau": True,
                "lr_factor": 0.1,
                "lr_scheduler_metric": "elbo_train",
            },
        }
    ).options
    assert (options.max_epochs, options.loader.batch_size, options.check_val_every_n_epoch) == (
        7,
        64,
        2,
    )
    assert options.checkpoint_monitor == "elbo_train"
    assert dict(options.trainer) == {"gradient_clip_val": 0.5}
    assert not options.progress.enabled
    assert options.loader.drop_last
    assert options.split.external_indexing == [[0, 1]]
    assert options.optimizer.optimizer_creator is creator
    assert (options.warmup.n_epochs, options.warmup.maximum) == (5, 0.5)
    assert options.plateau is not None
    assert (options.plateau.factor, options.plateau.metric) == (0.1, "elbo_train")


def test_a_plateau_needs_to_be_asked_for() -> None:
    assert parse_train_kwargs({"plan_kwargs": {"lr_factor": 0.1}}).options.plateau is None


@pytest.mark.parametrize(
    ("given_kwargs", "monitor", "patience"),
    [
        ({"early_stopping": True}, "elbo_validation", 45),
        ({"early_stopping": "elbo_train"}, "elbo_train", 45),
        ({"early_stopping_patience": 3}, "elbo_validation", 3),
        ({"early_stopping": True, "early_stopping_monitor": "elbo_train"}, "elbo_train", 45),
    ],
)
def test_early_stopping_is_asked_for_in_several_ways(
    given_kwargs: dict, monitor: str, patience: int
) -> None:
    stop = parse_train_kwargs(given_kwargs).options.early_stopping
    assert stop is not None
    assert (stop.monitor, stop.patience) == (monitor, patience)


def test_early_stopping_that_is_switched_off_stays_off() -> None:
    assert (
        parse_train_kwargs(
            {"early_stopping": False, "early_stopping_patience": 3}
        ).options.early_stopping
        is None
    )


def test_an_early_stopping_callback_may_stand_for_true() -> None:
    callback = EarlyStopping("elbo_train")
    parsed = parse_train_kwargs({"early_stopping": callback})
    assert parsed.options.early_stopping is None
    assert parsed.callbacks == (callback,)


@pytest.mark.parametrize("wrap", [list, tuple, lambda x: x[0]])
def test_callbacks_come_alone_or_in_a_sequence_that_stays_as_it_was(wrap: object) -> None:
    given = [pl.Callback()]
    assert parse_train_kwargs({"callbacks": wrap(given)}).callbacks == tuple(given)  # type: ignore[operator]
    assert len(given) == 1


@pytest.mark.parametrize("hook", ["on_step_start", "on_step_end"])
def test_a_callback_has_both_hooks_of_a_step_or_neither(hook: str) -> None:
    callback = type("Half", (pl.Callback,), {hook: lambda *_: None})()
    with pytest.raises(InvalidOptionError, match=f"or neither; Half has {hook} alone"):
        parse_train_kwargs({"callbacks": callback})


def test_what_train_was_told_goes_before_the_config() -> None:
    @dataclass
    class TrainerConfig:
        early_stopping: bool = True
        max_epochs: int = 77
        logger: object = None

    options = parse_train_kwargs({"trainer_config": TrainerConfig(), "max_epochs": 5}).options
    assert options.max_epochs == 5
    assert options.early_stopping is not None
    plan = parse_train_kwargs(
        {"plan_config": {"lr": 0.1, "eps": 0.5}, "plan_kwargs": {"lr": 0.2}}
    ).options.optimizer
    assert (plan.lr, plan.eps) == (0.2, 0.5)


def test_a_fixed_kl_weight_is_a_warmup_that_has_ended() -> None:
    warmup = parse_train_kwargs({"plan_kwargs": {"kl_weight": 0.3}}).options.warmup
    assert (warmup.n_epochs, warmup.maximum) == (None, 0.3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"plan_kwargs": {"lr_scheduler_metric": 3}}, "lr_scheduler_metric to be a string; got 3"),
        ({"plan_kwargs": {"lr_factor": "x"}}, "lr_factor to be a number; got 'x'"),
        (
            {"early_stopping": False, "early_stopping_patience": "a"},
            "early_stopping_patience to be a whole number; got 'a'",
        ),
        (
            {"enable_checkpointing": False, "checkpointing_monitor": 3},
            "checkpointing_monitor to be a string or None; got 3",
        ),
        ({"plan_kwargs": {"compile_kwargs": 3}}, "compile_kwargs to be a dictionary; got 3"),
        ({"early_stopping_monitor": [1, 2]}, "early_stopping_monitor to be a string"),
        ({"max_epochs": 10**400}, "which is too large"),
    ],
)
def test_options_of_what_is_off_are_checked_too(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        parse_train_kwargs(kwargs)
    assert message in str(caught.value)

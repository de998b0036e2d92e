"""Learning rates of schedules, against closed forms and against Lightning's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData, read_h5ad
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, StepLR

from cellvae.data import Split
from cellvae.errors import InvalidOptionError, TrainingWarning, UnknownOptionError
from cellvae.model import SCVI
from cellvae.train.callbacks.scheduling.lr_scheduler import LRSchedulerCallback, select_optimizer
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains

LR = 0.01


class Steps(pl.Callback):
    """Keeps the rate (and first beta) of every optimizer step, by epoch."""

    def __init__(self) -> None:
        self.rates: dict[int, list[float]] = {}
        self.betas: list[float] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        group = optimizer.param_groups[0]
        self.rates.setdefault(trainer.current_epoch, []).append(group["lr"])
        self.betas.append(group["betas"][0])

    @property
    def by_epoch(self) -> list[float]:
        assert all(len(set(rates)) == 1 for rates in self.rates.values())
        return [rates[0] for rates in self.rates.values()]

    @property
    def by_step(self) -> list[float]:
        return [rate for rates in self.rates.values() for rate in rates]


class Script(pl.Callback):
    """Logs a metric from a list."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("script_loss", self.values[trainer.current_epoch])


def run(module: Any, rows: Any, split: Split, *callbacks: pl.Callback, **kwargs: Any) -> RunResult:
    given = {"max_epochs": 10, "batch_size": 25, "plan_kwargs": {"lr": LR}, "accelerator": "cpu"}
    given |= {"enable_progress_bar": False, "callbacks": list(callbacks)}
    parsed = parse_train_kwargs({**given, **kwargs})
    return fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)


CLOSED_FORMS = {
    "cosine": ({}, lambda e: LR * (1 + math.cos(math.pi * e / 10)) / 2),
    "step": ({"step_size": 3, "gamma": 0.5}, lambda e: LR * 0.5 ** (e // 3)),
    "exponential": ({"gamma": 0.8}, lambda e: LR * 0.8**e),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_rates_of_ten_epochs(module: Any, rows: Any, split: Split, name: str) -> None:
    arguments, form = CLOSED_FORMS[name]
    steps = Steps()
    outcome = run(module, rows, split, LRSchedulerCallback(name, arguments=arguments), steps)
    wanted = [form(epoch) for epoch in range(10)]
    assert steps.by_epoch == pytest.approx(wanted, rel=1e-9)
    assert outcome.history["lr-Adam"].iloc[:, 0].tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_factory_is_driven_by_epochs_or_steps(module: Any, rows: Any, split: Split) -> None:
    def warming(optimizer: torch.optim.Optimizer) -> LambdaLR:
        return LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / 5))

    epochs, steps = Steps(), Steps()
    run(module, rows, split, LRSchedulerCallback(warming), epochs)
    run(module, rows, split, LRSchedulerCallback(warming, interval="step"), steps)
    assert epochs.by_epoch == pytest.approx([LR * min(1, (e + 1) / 5) for e in range(10)])
    assert len(steps.by_step) == 20
    assert steps.by_step == pytest.approx([LR * min(1, (s + 1) / 5) for s in range(20)])


def test_steps_are_those_of_the_optimizer_when_gradients_accumulate(
    module: Any, rows: Any, split: Split
) -> None:
    steps = Steps()
    schedule = LRSchedulerCallback("exponential", interval="step", arguments={"gamma": 0.5})
    run(module, rows, split, schedule, steps, accumulate_grad_batches=2, max_epochs=4)
    assert steps.by_step == pytest.approx([LR * 0.5**i for i in range(4)])


def test_one_cycle_takes_all_steps_of_the_run(module: Any, rows: Any, split: Split) -> None:
    steps, weight = Steps(), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=LR)
    reference = OneCycleLR(optimizer, max_lr=LR, total_steps=20)
    wanted, betas = [], []
    for _ in range(20):
        wanted.append(optimizer.param_groups[0]["lr"])
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        reference.step()
    outcome = run(module, rows, split, LRSchedulerCallback("onecycle"), steps)
    assert steps.by_step == pytest.approx(wanted)
    assert steps.betas == pytest.approx(betas)
    assert max(steps.by_step) == pytest.approx(LR)
    assert outcome.carryover is not None
    group = outcome.carryover.optimizers[0]["param_groups"][0]
    assert (group["lr"], group["betas"]) == (LR, (0.9, 0.999))
    assert "initial_lr" not in group


def test_a_metric_that_stands_still_lowers_the_rate(module: Any, rows: Any, split: Split) -> None:
    steps = Steps()
    schedule = LRSchedulerCallback(
        "plateau", monitor="script_loss", arguments={"factor": 0.1, "patience": 1}
    )
    # Follows the value of the same epoch: 3 and 4 are without improvement, so 5 is slower.
    values = [5.0, 4.0, 3.0, 3.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    run(module, rows, split, schedule, Script(values), steps)
    assert steps.by_epoch == pytest.approx([LR] * 5 + [LR / 10] * 4 + [LR / 100])


@pytest.mark.parametrize("monitor", ["elbo_validation", "elbo_train"])
def test_plateau_is_that_of_lightning(module: Any, rows: Any, split: Split, monitor: str) -> None:
    state = {k: v.clone() for k, v in module.state_dict().items()}
    ours, theirs = Steps(), Steps()
    arguments = {"factor": 0.6, "patience": 0, "threshold": 1.0, "threshold_mode": "abs"}
    run(
        module,
        rows,
        split,
        LRSchedulerCallback("plateau", monitor=monitor, arguments=arguments),
        ours,
    )
    module.load_state_dict(state)
    kwargs = {"lr": LR, "reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1.0}
    kwargs["lr_scheduler_metric"] = monitor
    run(module, rows, split, theirs, plan_kwargs=kwargs)
    assert ours.by_epoch == theirs.by_epoch
    assert len(set(ours.by_epoch)) > 1


def test_a_metric_that_is_not_measured_in_an_epoch_does_not_move_it(
    module: Any, rows: Any, split: Split
) -> None:
    steps = Steps()
    schedule = LRSchedulerCallback(
        "plateau",
        monitor="elbo_validation",
        arguments={"factor": 0.5, "patience": 0, "threshold": 1e9, "threshold_mode": "abs"},
    )
    run(module, rows, split, schedule, steps, check_val_every_n_epoch=3, max_epochs=8)
    # Measured in epochs 2 and 5: the first is the best so far, the second no improvement.
    assert steps.by_epoch == pytest.approx([LR] * 6 + [LR / 2] * 2)


# With a threshold that no value passes, every measured value after the first halves the rate.
PLATEAU = {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e9, "lr_factor": 0.5}


def halvings(measured: list[int], n_epochs: int) -> list[float]:
    """Rates of the epochs of a run whose plateau metric is measured in these epochs."""
    return [LR * 0.5 ** max(0, sum(m < e for m in measured) - 1) for e in range(n_epochs)]


@pytest.mark.parametrize(
    ("metric", "every", "measured"),
    [
        ("elbo_validation", 1, [0, 1, 2, 3, 4, 5, 6]),
        ("elbo_validation", 2, [1, 3, 5]),
        ("validation_elbo", 3, [2, 5]),
        ("elbo_train", 2, [0, 1, 2, 3, 4, 5, 6]),
        ("every_third_epoch_loss", None, [0, 3, 6]),
        ("late_epochs_loss", 2, [3, 4, 5, 6]),
    ],
)
def test_the_plateau_steps_in_epochs_that_measure_its_metric(
    module: Any, rows: Any, split: Split, metric: str, every: int | None, measured: list[int]
) -> None:
    class Sometimes(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            epoch = trainer.current_epoch
            if epoch % 3 == 0:
                pl_module.log("every_third_epoch_loss", float(epoch), batch_size=1)
            if epoch >= 3:
                pl_module.log("late_epochs_loss", float(epoch), batch_size=1)

    plan = {"lr": LR, **PLATEAU, "lr_scheduler_metric": metric}
    state = {k: v.clone() for k, v in module.state_dict().items()}
    kwargs: dict[str, Any] = {"check_val_every_n_epoch": every, "max_epochs": 7}
    plateau, callback = Steps(), Steps()
    run(module, rows, split, Sometimes(), plateau, plan_kwargs=plan, **kwargs)
    assert plateau.by_epoch == pytest.approx(halvings(measured, 7))
    module.load_state_dict(state)
    schedule = LRSchedulerCallback(
        "plateau",
        monitor=metric,
        arguments={"factor": 0.5, "patience": 0, "threshold": 1e9, "threshold_mode": "abs"},
    )
    run(module, rows, split, Sometimes(), schedule, callback, **kwargs)
    assert callback.by_epoch == plateau.by_epoch


def test_a_schedule_whose_metric_never_came_says_so(module: Any, rows: Any, split: Split) -> None:
    kwargs: dict[str, Any] = {"check_val_every_n_epoch": 5, "max_epochs": 3}
    expected = "never stepped: 'elbo_validation' was not measured"
    with pytest.warns(TrainingWarning, match=expected):
        run(module, rows, split, plan_kwargs=PLATEAU, **kwargs)
    with pytest.warns(TrainingWarning, match=expected):
        run(
            module, rows, split, LRSchedulerCallback("plateau", monitor="elbo_validation"), **kwargs
        )


def test_validation_is_switched_on_for_the_metric(module: Any, rows: Any, split: Split) -> None:
    schedule = LRSchedulerCallback("plateau", monitor="elbo_validation")
    assert "elbo_validation" in run(module, rows, split, schedule, max_epochs=2).history
    with pytest.raises(InvalidOptionError, match="Did you mean 'elbo_validation'"):
        run(module, rows, split, LRSchedulerCallback("plateau", monitor="elbo_validaton"))


def test_a_further_run_starts_from_the_rate_of_the_user() -> None:
    model = small_model()
    first, second = Steps(), Steps()
    for steps in (first, second):
        train(model, LRSchedulerCallback("cosine"), steps, max_epochs=3)
    assert first.by_epoch == second.by_epoch
    assert first.by_epoch[0] == pytest.approx(LR)


def small_model() -> SCVI:
    adata = AnnData(np.random.default_rng(0).poisson(3.0, (60, 10)).astype(np.float32))
    adata.obs_names = [f"cell{i}" for i in range(60)]
    SCVI.setup_anndata(adata)
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2)


def train(model: SCVI, *callbacks: pl.Callback, **kwargs: Any) -> None:
    given = {"max_epochs": 6, "batch_size": 16, "accelerator": "cpu", "seed": 3}
    given |= {"enable_progress_bar": False, "plan_kwargs": {"lr": LR}}
    model.train(callbacks=list(callbacks), **{**given, **kwargs})


class Crash(pl.Callback):
    """Raises in the second batch of epoch 3."""

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.current_epoch == 3 and rest[-1] == 1:
            raise OSError("disk full")


def weights(model: SCVI) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.module.state_dict().values()])


SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"scheduler": "cosine"},
    "onecycle": {"scheduler": "onecycle"},
    "plateau": {
        "scheduler": "plateau",
        "monitor": "elbo_train",
        "arguments": {"patience": 0, "threshold": 50.0, "threshold_mode": "abs"},
    },
    "factory": {"scheduler": lambda o: LambdaLR(o, lambda i: 0.9**i), "interval": "step"},
}


@pytest.mark.parametrize("kwargs", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_run_that_was_cut_off_goes_on_bit_by_bit(tmp_path: Path, kwargs: dict[str, Any]) -> None:
    whole, broken, again = small_model(), small_model(), small_model()
    steps, rest = Steps(), Steps()
    train(whole, LRSchedulerCallback(**kwargs), steps)
    with pytest.raises(OSError, match="disk full"):
        train(broken, LRSchedulerCallback(**kwargs), Crash(), resume="auto", run_dir=tmp_path)
    train(again, LRSchedulerCallback(**kwargs), rest, resume="auto", run_dir=tmp_path)
    assert torch.equal(weights(whole), weights(again))
    assert rest.by_step == [r for e in (3, 4, 5) for r in steps.rates[e]]
    assert len(set(steps.by_step)) > 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scheduler": "cosin"}, "got 'cosin'. Did you mean 'cosine'"),
        ({"scheduler": "plateau"}, "monitor to be the name of a metric"),
        ({"scheduler": lambda o: None, "interval": "metric"}, "monitor to be the name of a metric"),
        ({"scheduler": "step"}, "'step_size': ..."),
        (
            {"scheduler": "cosine", "interval": "metric", "monitor": "elbo_train"},
            "'epoch' or 'step'",
        ),
        ({"scheduler": "cosine", "interval": "epok"}, "Did you mean 'epoch'"),
        ({"scheduler": "plateau", "monitor": "thing"}, "arguments={'mode': 'min'}"),
        ({"scheduler": lambda o: None, "arguments": {"a": 1}}, "only for a schedule with a name"),
        ({"scheduler": 3}, "got int"),
    ],
)
def test_what_cannot_be_is_told(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        LRSchedulerCallback(**kwargs)
    assert message in str(caught.value)


def test_an_instance_and_a_misspelt_argument_are_told() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(InvalidOptionError, match="Give lambda optimizer"):
        LRSchedulerCallback(StepLR(optimizer, 1))  # type: ignore[arg-type]
    with pytest.raises(UnknownOptionError, match="Did you mean 'gamma'"):
        LRSchedulerCallback("exponential", arguments={"gama": 0.9})


def test_an_optimizer_is_chosen_by_number_or_class() -> None:
    weight = [torch.nn.Parameter(torch.zeros(1))]
    adam, sgd = torch.optim.Adam(weight), torch.optim.SGD(weight, lr=1.0)
    assert select_optimizer([adam, sgd], "SGD") is sgd
    assert select_optimizer([adam, sgd], 0) is adam
    for which in ("Adm", 2, -1):
        with pytest.raises(InvalidOptionError, match=r"There are: 0 \(Adam\), 1 \(SGD\)"):
            select_optimizer([adam, sgd], which)
    with pytest.raises(InvalidOptionError, match="of which there are several"):
        select_optimizer([sgd, sgd], "SGD")


def test_a_function_that_makes_no_schedule_is_told(module: Any, rows: Any, split: Split) -> None:
    outcome = run(module, rows, split, LRSchedulerCallback(lambda optimizer: None))
    assert isinstance(outcome.error, InvalidOptionError)
    assert "it returned None" in str(outcome.error)


def test_real_cells_are_trained_with_one_cycle(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")
    adata = adata[:400, np.asarray(adata.X.sum(0)).ravel().argsort()[-200:]].copy()
    SCVI.setup_anndata(adata)
    model, steps = SCVI(adata, n_hidden=16, n_latent=4), Steps()
    train(model, LRSchedulerCallback("onecycle"), steps, max_epochs=5, batch_size=64)
    assert int(np.argmax(steps.by_step)) == pytest.approx(0.3 * len(steps.by_step), abs=1)
    elbo = model.history["elbo_train"].iloc[:, 0]
    assert elbo.iloc[-1] < elbo.iloc[0]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("step", {"step_size": "2"}, r"arguments\['step_size'\] to be a whole number; got '2'"),
        ("exponential", {"gamma": "a"}, r"arguments\['gamma'\] to be a number; got 'a'"),
    ],
)
def test_arguments_of_a_named_schedule_have_the_types_of_torch(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        LRSchedulerCallback(name, arguments=arguments)

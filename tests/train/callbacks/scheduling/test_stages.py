"""Stages begin where they should, once, and leave nothing behind."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData, read_h5ad

from cellvae.data import Split
from cellvae.errors import InvalidOptionError, TrainingWarning
from cellvae.model import SCVI
from cellvae.train import SaveCheckpoint
from cellvae.train.callbacks.scheduling.stages import Stage, Stages
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains

LR = 0.01


class Watch(pl.Callback):
    """Keeps rate, KL weight and weights of every epoch."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.kl: list[float] = []
        self.encoders: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        if rest[-1] == 0:
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
            self.kl.append(float(pl_module.kl_weight))
            state = pl_module.module.z_encoder.state_dict().values()
            self.encoders.append(torch.cat([v.double().flatten() for v in state]))

    def moved(self) -> list[bool]:
        pairs = zip(self.encoders[:-1], self.encoders[1:], strict=True)
        return [not torch.equal(a, b) for a, b in pairs]


def run(module: Any, rows: Any, split: Split, *callbacks: pl.Callback, **kwargs: Any) -> RunResult:
    given = {"max_epochs": 6, "batch_size": 25, "plan_kwargs": {"lr": LR}, "accelerator": "cpu"}
    given |= {"enable_progress_bar": False, "callbacks": list(callbacks)}
    parsed = parse_train_kwargs({**given, **kwargs})
    return fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)


def test_rates_are_set_and_multiplied(module: Any, rows: Any, split: Split) -> None:
    stages = [
        Stage(epochs=2),
        Stage(epochs=1, lr=0.5),
        Stage(epochs=2, lr_factor=0.1),
        Stage(lr_factor=0.1),
    ]
    watch = Watch()
    outcome = run(module, rows, split, Stages(stages), watch)
    assert watch.rates == pytest.approx([LR, LR, 0.5, 0.05, 0.05, 0.005])
    assert outcome.history["lr-Adam"].iloc[:, 0].tolist() == pytest.approx(watch.rates)
    assert outcome.carryover is not None
    assert outcome.carryover.optimizers[0]["param_groups"][0]["lr"] == LR


def test_parts_are_frozen_in_their_stage_only(module: Any, rows: Any, split: Split) -> None:
    stages = [Stage(epochs=2, freeze="z_encoder"), Stage(epochs=1), Stage(freeze=["z_encoder"])]
    watch = Watch()
    run(module, rows, split, Stages(stages), watch)
    assert watch.moved() == [False, False, True, False, False]
    assert all(p.requires_grad for p in module.parameters())


def test_one_stage_after_the_other_may_freeze_parts_that_overlap(
    module: Any, rows: Any, split: Split
) -> None:
    stages = [Stage(epochs=3, freeze=["z_encoder", "px_r"]), Stage(freeze="z_encoder")]
    px_r, watch = module.px_r.detach().clone(), Watch()
    run(module, rows, split, Stages(stages), watch, max_epochs=3)
    assert torch.equal(module.px_r, px_r)
    run(module, rows, split, Stages(stages), watch)
    assert not any(watch.moved())
    assert not torch.equal(module.px_r, px_r)
    assert all(p.requires_grad for p in module.parameters())


def test_the_kl_weight_of_a_stage_replaces_the_warm_up(
    module: Any, rows: Any, split: Split
) -> None:
    stages = [Stage(epochs=2, kl_weight=0.25), Stage(epochs=2), Stage(kl_weight=0.0)]
    watch = Watch()
    kwargs = {"plan_kwargs": {"n_epochs_kl_warmup": 10}, "max_epochs": 10}
    outcome = run(module, rows, split, Stages(stages), watch, **kwargs)
    wanted = [0.25, 0.25, 0.2, 0.3, *[0.0] * 6]
    assert watch.kl == pytest.approx(wanted)
    assert outcome.history["kl_weight"].iloc[:, 0].tolist() == pytest.approx(wanted)


def test_a_stage_without_a_wish_changes_nothing(module: Any, rows: Any, split: Split) -> None:
    state = {k: v.clone() for k, v in module.state_dict().items()}
    run(module, rows, split, Stages([Stage(epochs=2), Stage()]))
    staged = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    run(module, rows, split)
    assert all(torch.equal(v, staged[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("verbose", [True, False])
def test_the_begin_of_a_stage_is_told_once_if_asked(
    module: Any, rows: Any, split: Split, verbose: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stages = Stages([Stage(epochs=2), Stage(freeze="decoder", lr=0.1)], verbose=verbose)
    with caplog.at_level(logging.INFO, "cellvae"):
        run(module, rows, split, stages)
    told = [r.getMessage() for r in caplog.records if "stage" in r.getMessage()]
    wanted = [
        "Epoch 0: stage 0 begins.",
        "Epoch 2: stage 1 begins (learning rate 0.1, decoder frozen).",
    ]
    assert told == (wanted if verbose else [])


class Crash(pl.Callback):
    """Raises in the second batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.current_epoch == self.epoch and rest[-1] == 1:
            raise OSError("disk full")


def small_model() -> SCVI:
    adata = AnnData(np.random.default_rng(0).poisson(3.0, (60, 10)).astype(np.float32))
    adata.obs_names = [f"cell{i}" for i in range(60)]
    SCVI.setup_anndata(adata)
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2)


def train(model: SCVI, *callbacks: pl.Callback, **kwargs: Any) -> None:
    given = {"max_epochs": 7, "batch_size": 16, "accelerator": "cpu", "seed": 3}
    given |= {"enable_progress_bar": False, "plan_kwargs": {"lr": LR, "n_epochs_kl_warmup": 5}}
    model.train(callbacks=list(callbacks), **{**given, **kwargs})


def weights(model: SCVI) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.module.state_dict().values()])


def stages() -> Stages:
    return Stages(
        [
            Stage(epochs=2, freeze="z_encoder", kl_weight=0.5),
            Stage(epochs=2, lr_factor=0.5),
            Stage(epochs=2, freeze="decoder", lr_factor=0.5, kl_weight=0.1),
            Stage(lr=0.1),
        ]
    )


@pytest.mark.parametrize("epoch", [1, 2, 3, 4, 5, 6])
def test_a_run_cut_off_in_any_epoch_goes_on_bit_by_bit(tmp_path: Path, epoch: int) -> None:
    whole, broken, again = small_model(), small_model(), small_model()
    watch, rest = Watch(), Watch()
    train(whole, stages(), watch)
    with pytest.raises(OSError, match="disk full"):
        train(broken, stages(), Crash(epoch), resume="auto", run_dir=tmp_path)
    assert all(p.requires_grad for p in broken.module.parameters())
    train(again, stages(), rest, resume="auto", run_dir=tmp_path)
    assert watch.rates == pytest.approx([LR] * 2 + [LR / 2] * 2 + [LR / 4] * 2 + [0.1])
    assert rest.rates == watch.rates[epoch:]
    assert rest.kl == watch.kl[epoch:]
    assert torch.equal(weights(whole), weights(again))


def test_one_instance_serves_two_runs() -> None:
    model, twice = small_model(), Stages([Stage(epochs=1), Stage(lr_factor=0.1)])
    for _ in range(2):
        watch = Watch()
        train(model, twice, watch, max_epochs=2, plan_kwargs={"lr": LR})
        assert watch.rates == pytest.approx([LR, LR / 10])


def test_models_can_be_kept_at_the_end_of_each_stage(tmp_path: Path) -> None:
    model, watch = small_model(), Watch()
    staged = stages()
    saver = SaveCheckpoint(tmp_path, monitor=None, epochs=staged.ends_at)
    train(model, staged, saver, watch)
    assert [n for n in range(10) if staged.ends_at(n)] == [2, 4, 6]
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert len(folders) == 3
    saved = SCVI.load(folders[1], model.adata).module.z_encoder.state_dict().values()
    assert torch.equal(torch.cat([v.double().flatten() for v in saved]), watch.encoders[4])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Stages([]), "at least one Stage"),
        (lambda: Stages([Stage(), Stage()]), "stage 0 of 2 does not say how long"),
        (lambda: Stages([{"epochs": 3}]), r"Stage\(epochs=...\); got"),  # type: ignore[list-item]
        (lambda: Stage(lr=0.1, lr_factor=0.1), "lr or lr_factor"),
        (lambda: Stage(epochs=0), "epochs to be at least 1; got 0"),
        (lambda: Stage(lr=-0.1), "lr to be at least 0; got -0.1"),
        (lambda: Stage(kl_weight=-1.0), "kl_weight to be at least 0"),
    ],
)
def test_what_cannot_be_is_told(made: Any, message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        made()


def test_a_wrong_part_of_a_late_stage_is_told_before_training(
    module: Any, rows: Any, split: Split
) -> None:
    outcome = run(module, rows, split, Stages([Stage(epochs=3), Stage(freeze="decodr")]))
    assert isinstance(outcome.error, InvalidOptionError)
    assert "Did you mean 'decoder'" in str(outcome.error)
    assert outcome.report.epochs == 0


def test_a_stage_that_would_never_begin_is_warned_of(module: Any, rows: Any, split: Split) -> None:
    with pytest.warns(TrainingWarning, match="would begin in epoch 6, but the run has 6 epochs"):
        run(module, rows, split, Stages([Stage(epochs=6), Stage(lr=0.1)]))


def test_real_cells_in_two_stages(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")
    adata = adata[:400, np.asarray(adata.X.sum(0)).ravel().argsort()[-200:]].copy()
    SCVI.setup_anndata(adata)
    model, watch = SCVI(adata, n_hidden=16, n_latent=4), Watch()
    two = Stages([Stage(epochs=3, freeze="z_encoder"), Stage(lr_factor=0.5)])
    train(model, two, watch, max_epochs=6)
    assert watch.moved() == [False, False, False, True, True]
    elbo = model.history["elbo_train"].iloc[:, 0]
    assert elbo.iloc[-1] < elbo.iloc[2] < elbo.iloc[0]


def test_a_stage_may_have_a_learning_rate_of_0(module: Any, rows: Any, split: Split) -> None:
    before = [p.detach().clone() for p in module.parameters()]
    outcome = run(module, rows, split, Stages([Stage(lr=0.0)]))
    assert outcome.report.epochs == 6
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))

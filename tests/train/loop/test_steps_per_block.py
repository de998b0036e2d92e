"""Weights do not depend on the number of steps in a block; what needs blocks of one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.errors import InvalidOptionError
from cellvae.model import SCANVI, SCVI
from cellvae.train import LRSchedulerCallback, SaveCheckpoint

pytestmark = pytest.mark.trains

QUICK: dict[str, Any] = {
    "max_epochs": 3,
    "batch_size": 16,
    "accelerator": "cpu",
    "seed": 0,
    "enable_progress_bar": False,
    "check_val_every_n_epoch": 1,
}
PLATEAU = {
    "reduce_lr_on_plateau": True,
    "lr": 0.01,
    "lr_patience": 0,
    "lr_threshold": 1e6,
    "lr_factor": 0.5,
}
ADVERSARIAL = {"adversarial_classifier": True}


@pytest.fixture
def cells() -> AnnData:
    adata = cellvae.data.synthetic_iid(batch_size=100, n_genes=12, n_proteins=0, n_regions=0)
    adata.obs["seen"] = np.where(np.arange(200) % 3 == 0, "Unknown", adata.obs["labels"])
    return adata


@pytest.fixture
def made(cells: AnnData) -> Callable[..., Any]:
    def make(kind: Any = SCVI, **config: Any) -> Any:
        if kind is SCANVI:
            SCANVI.setup_anndata(cells, "seen", "Unknown", batch_key="batch")
        else:
            kind.setup_anndata(cells, batch_key="batch")
        torch.manual_seed(0)
        return kind(cells, n_hidden=8, n_latent=3, **config)

    return make


def same(first: Any, second: Any) -> bool:
    """Whether two trained models are equal bit by bit, their histories too."""
    one, two = first.module.state_dict(), second.module.state_dict()
    return all(torch.equal(one[k], two[k]) for k in one) and first.history.table.equals(
        second.history.table
    )


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"plan_kwargs": {"n_steps_kl_warmup": 20, "n_epochs_kl_warmup": None}},
        {"plan_kwargs": {"optimizer": "AdamW", "weight_decay": 0.1}},
        {"on_nan": "skip_batch"},
        {"on_nan": "ignore"},
        {"early_stopping": True, "early_stopping_patience": 1},
        {"datasplitter_kwargs": {"drop_last": True}},
        {"plan_kwargs": PLATEAU},
        {"plan_kwargs": {**PLATEAU, "lr_scheduler_metric": "elbo_train"}},
        {"plan_kwargs": PLATEAU, "check_val_every_n_epoch": 2},
        {"lr_schedule": "cosine"},
        {"plan_kwargs": {"adversarial_classifier": True}},
        {"adversarial_classifier": True, "plan_kwargs": PLATEAU},
        {"plan_kwargs": {**ADVERSARIAL, "n_steps_kl_warmup": 20, "n_epochs_kl_warmup": None}},
        {"plan_kwargs": {**ADVERSARIAL, "scale_adversarial_loss": 2.0}, "on_nan": "ignore"},
        {"precision": "32-true", "deterministic": True},
    ],
    ids=str,
)
def test_weights_do_not_depend_on_the_steps_of_a_block(
    made: Callable[..., Any], kwargs: dict[str, Any]
) -> None:
    models = []
    for k in (1, 8, 1000, "auto"):
        model = made()
        model.train(**QUICK | kwargs, steps_per_block=k)
        models.append(model)
    n_steps = 12 - ("datasplitter_kwargs" in kwargs)
    assert [m.training_report.steps_per_block for m in models] == [1, 8, n_steps, n_steps]
    assert models[3].training_report.steps_reason == "nothing watches single steps"
    assert "12 a block" in str(models[2].training_report) or n_steps < 12
    assert all(same(models[0], other) for other in models[1:])


def test_labels_are_learned_equally_in_blocks(made: Callable[..., Any]) -> None:
    models = []
    for k in (1, 5, "auto"):
        model = made(SCANVI)
        model.train(**QUICK, steps_per_block=k, n_samples_per_label=7)
        models.append(model)
    assert [m.training_report.steps_per_block for m in models] == [1, 5, 12]
    assert same(models[0], models[1]) and same(models[0], models[2])


def test_labels_of_cells_that_are_not_shuffled_are_learned(made: Callable[..., Any]) -> None:
    model = made(SCANVI)
    model.train(**QUICK, datasplitter_kwargs={"shuffle": False})
    assert model.training_report.steps_reason == "single steps: cells are not shuffled"


def test_a_query_is_trained_equally_in_blocks(made: Callable[..., Any], cells: AnnData) -> None:
    reference = made(encode_covariates=True)
    reference.train(**QUICK)
    query = cells[:120].copy()
    query.obs["batch"] = "new"
    models = [SCVI.load_query_data(query, reference) for _ in range(2)]
    for k, model in zip((1, "auto"), models, strict=True):
        model.train(**QUICK, steps_per_block=k, plan_kwargs={"weight_decay": 0.1})
    assert models[1].training_report.steps_per_block > 1
    assert same(*models)


class Watches(pl.Callback):
    """Counts single steps."""

    def __init__(self) -> None:
        self.n = 0

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.n += 1


def test_a_callback_with_step_hooks_gets_single_steps(made: Callable[..., Any]) -> None:
    watching, plain = Watches(), made()
    plain.train(**QUICK)
    model = made()
    model.train(**QUICK, callbacks=[watching], steps_per_block=8)
    assert watching.n == 36
    report = model.training_report
    assert report.steps_per_block == 1
    assert report.steps_reason == "single steps: Watches has on_train_batch_end"
    assert same(plain, model)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        (
            {"callbacks": [pl.callbacks.LambdaCallback(on_before_zero_grad=print)]},
            "LambdaCallback has on_before_zero_grad",
        ),
        (
            {"callbacks": [pl.callbacks.StochasticWeightAveraging(1e-3)]},
            "StochasticWeightAveraging depends on them",
        ),
        ({"gradient_clip_val": 1.0}, "gradient_clip_val is given"),
        ({"max_steps": 5}, "max_steps is given"),
        ({"limit_train_batches": 3}, "limit_train_batches is given"),
        ({"accumulate": {0: 2}}, "gradients of several batches are accumulated"),
        (
            {"callbacks": [LRSchedulerCallback("onecycle")]},
            "LRSchedulerCallback has on_train_batch_end",
        ),
        ({"precision": "bf16-mixed"}, "precision='bf16-mixed'"),
        ({"datasplitter_kwargs": {"num_workers": 1}}, "batches are prefetched"),
        ({"detect_anomaly": True}, "detect_anomaly is given"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_blocks_of_one_step(
    made: Callable[..., Any], kwargs: dict[str, Any], reason: str
) -> None:
    model = made()
    model.train(**QUICK | {"max_epochs": 1}, **kwargs)
    assert model.training_report.steps_per_block == 1
    assert model.training_report.steps_reason == f"single steps: {reason}"


def test_checkpoints_and_a_bar_need_no_single_steps(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    model = made()
    best = SaveCheckpoint(tmp_path, monitor="elbo_validation", load_best_on_end=True)
    model.train(**QUICK | {"enable_progress_bar": True}, callbacks=[best], run_dir=tmp_path / "run")
    assert model.training_report.steps_per_block == 12
    assert model.training_report.steps_reason == "nothing watches single steps"


class Interrupts(pl.Callback):
    """Ctrl-C at the beginning of an epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("first", "second"), [(1, "auto"), (5, 1), ("auto", 7)])
@pytest.mark.parametrize(
    "train_kwargs",
    [
        {},
        {"plan_kwargs": PLATEAU},
        {"lr_schedule": "cosine"},
        {"adversarial_classifier": True, "plan_kwargs": PLATEAU},
    ],
    ids=str,
)
def test_a_run_is_resumed_with_other_blocks_bit_by_bit(
    made: Callable[..., Any], tmp_path: Path, first: Any, second: Any, train_kwargs: dict[str, Any]
) -> None:
    kwargs = {**QUICK, **train_kwargs, "max_epochs": 4, "resume": "auto"}
    warmup = {"n_steps_kl_warmup": 40, "n_epochs_kl_warmup": None}
    kwargs["plan_kwargs"] = warmup | train_kwargs.get("plan_kwargs", {})
    whole, cut, again = made(), made(), made()
    whole.train(**kwargs, run_dir=tmp_path / "whole")
    cut.train(**kwargs, run_dir=tmp_path / "cut", steps_per_block=first, callbacks=[Interrupts()])
    again.train(**kwargs, run_dir=tmp_path / "cut", steps_per_block=second)
    assert again.training_report.resumed_epoch == 2
    assert same(whole, again)


def test_a_step_that_is_not_finite_is_found_within_a_block(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events, weights = [], []
    for k in (1, "auto"):
        model = made()
        loss, calls = model.module.loss, []

        def spoilt(batch: Any, weight: Any, loss: Any = loss, calls: Any = calls) -> Any:
            calls.append(1)
            found = loss(batch, weight)
            return found._replace(loss=found.loss * torch.nan) if len(calls) == 5 else found

        monkeypatch.setattr(model.module, "loss", spoilt)
        model.train(
            **QUICK | {"max_epochs": 1, "check_val_every_n_epoch": None},
            on_nan="skip_batch",
            steps_per_block=k,
        )
        events.append(model.training_report.nan)
        weights.append(model.module.state_dict())
        assert model.training_report.n_skipped == 1
    assert events[0] == events[1] and events[0]["batch"] == 4
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_run_that_is_not_finite_ends_after_the_step(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made()
    loss, calls = model.module.loss, []

    def spoilt(batch: Any, weight: Any) -> Any:
        calls.append(batch.counts.shape)
        found = loss(batch, weight)
        return found._replace(loss=found.loss * torch.nan) if len(calls) == 3 else found

    monkeypatch.setattr(model.module, "loss", spoilt)
    with pytest.raises(cellvae.errors.TrainingError, match="batch 2"):
        model.train(**QUICK | {"check_val_every_n_epoch": None})
    assert len(calls) <= 4  # the third step, and once more to find its cells


def test_invalid_numbers_of_steps_are_refused(made: Callable[..., Any]) -> None:
    with pytest.raises(InvalidOptionError, match="steps_per_block"):
        made().train(**QUICK, steps_per_block=0)
    with pytest.raises(InvalidOptionError, match="steps_per_block"):
        made().train(**QUICK, steps_per_block="many")

"""Lengths of gradients, against those that the optimizer got."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import read_h5ad

from cellvae.data import Split
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train.callbacks.monitoring.gradient_norm import GradNormMonitor
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


class Gradients(pl.Callback):
    """Keeps every gradient after the backward pass; may spoil that of one batch."""

    def __init__(self, bad: tuple[int, int] | None = None) -> None:
        self.bad = bad
        self.kept: dict[int, list[dict[str, np.ndarray]]] = {}

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        epoch = self.kept.setdefault(trainer.current_epoch, [])
        named = dict(pl_module.module.named_parameters())
        if (trainer.current_epoch, len(epoch)) == self.bad:
            named["px_r"].grad[0] = float("inf")
        epoch.append({k: p.grad.double().numpy().copy() for k, p in named.items()})

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        for parameter in pl_module.module.parameters():
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)

    def lengths(self, epoch: int) -> list[float]:
        return [math.sqrt(sum((g**2).sum() for g in s.values())) for s in self.kept[epoch]]


def run(module: Any, rows: Any, split: Split, *callbacks: pl.Callback, **kwargs: Any) -> RunResult:
    given = {"max_epochs": 2, "enable_progress_bar": False, "batch_size": 8, "accelerator": "cpu"}
    parsed = parse_train_kwargs({**given, "callbacks": list(callbacks), **kwargs})
    outcome = fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)
    assert outcome.error is None
    return outcome


@pytest.mark.parametrize("every", [1, 3, 50])
def test_lengths_are_those_of_the_gradients(
    module: Any, rows: Any, split: Split, every: int
) -> None:
    gradients, monitor = Gradients(), GradNormMonitor(every_n_steps=every)
    table = run(module, rows, split, monitor, gradients).history.table
    for epoch in range(2):
        looked = gradients.lengths(epoch)[::every]
        assert len(gradients.lengths(epoch)) == 6
        assert table["grad_norm_total"][epoch] == pytest.approx(np.mean(looked), rel=1e-5)
        assert table["grad_norm_max"][epoch] == pytest.approx(max(looked), rel=1e-5)
        assert table["grad_norm_nonfinite"][epoch] == 0


def test_lengths_of_single_parameters(module: Any, rows: Any, split: Split) -> None:
    gradients, monitor = Gradients(), GradNormMonitor(per_layer=True, every_n_steps=2)
    table = run(module, rows, split, monitor, gradients).history.table
    for name, _ in module.named_parameters():
        wanted = np.mean([np.linalg.norm(s[name]) for s in gradients.kept[1][::2]])
        assert table[f"grad_norm/{name}"][1] == pytest.approx(wanted, rel=1e-5)


def test_gradients_are_read_before_they_are_clipped(module: Any, rows: Any, split: Split) -> None:
    gradients, monitor = Gradients(), GradNormMonitor(every_n_steps=1)
    table = run(module, rows, split, monitor, gradients, gradient_clip_val=1e-3).history.table
    assert table["grad_norm_total"][1] == pytest.approx(np.mean(gradients.lengths(1)), rel=1e-5)
    assert table["grad_norm_total"][1] > 1


def test_a_step_that_is_not_finite_is_counted_and_left_out(
    module: Any, rows: Any, split: Split
) -> None:
    gradients = Gradients(bad=(1, 2))
    monitor = GradNormMonitor(every_n_steps=1)
    table = run(module, rows, split, monitor, gradients).history.table
    good = [x for x in gradients.lengths(1) if math.isfinite(x)]
    assert len(good) == 5
    assert table["grad_norm_nonfinite"].tolist() == [0, 1]
    assert table["grad_norm_total"][1] == pytest.approx(np.mean(good), rel=1e-5)
    assert table["grad_norm_max"][1] == pytest.approx(max(good), rel=1e-5)


def test_frozen_parameters_have_no_length(module: Any, rows: Any, split: Split) -> None:
    module.px_r.requires_grad_(False)
    table = run(module, rows, split, GradNormMonitor(per_layer=True)).history.table
    assert table["grad_norm/px_r"].tolist() == [0, 0]
    assert table["grad_norm_total"].min() > 0


def test_it_changes_nothing_and_can_be_followed(module: Any, rows: Any, split: Split) -> None:
    state = {k: v.clone() for k, v in module.state_dict().items()}
    kwargs = {"early_stopping": "grad_norm_total", "early_stopping_mode": "min"}
    kwargs |= {"early_stopping_restore_best": False}
    run(module, rows, split, GradNormMonitor(True, every_n_steps=1), **kwargs)
    watched = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    run(module, rows, split)
    assert all(torch.equal(v, watched[k]) for k, v in module.state_dict().items())


def test_a_number_out_of_range_is_told() -> None:
    with pytest.raises(InvalidOptionError, match="every_n_steps to be at least 1; got 0"):
        GradNormMonitor(every_n_steps=0)


def test_gradients_of_real_cells_shrink(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")
    adata = adata[:400, np.asarray(adata.X.sum(0)).ravel().argsort()[-200:]].copy()
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=16, n_latent=4)
    model.train(
        max_epochs=10,
        callbacks=GradNormMonitor(every_n_steps=1),
        plan_kwargs={"lr": 0.01},
        accelerator="cpu",
        enable_progress_bar=False,
        seed=0,
    )
    totals = model.history["grad_norm_total"].iloc[:, 0]
    assert totals.iloc[-3:].mean() < totals.iloc[0]
    assert (model.history["grad_norm_nonfinite"] == 0).all(axis=None)

"""Numbers that are not finite never reach the weights, and their cause is named."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData, read_h5ad

from cellvae.errors import InvalidOptionError, TrainingError, TrainingWarning
from cellvae.model import SCVI
from cellvae.train import NaNGuard

pytestmark = pytest.mark.trains

WORDS: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "batch_size": 16}


@pytest.fixture
def model() -> SCVI:
    random = np.random.default_rng(0)
    adata = AnnData(random.poisson(3.0, (60, 10)).astype(np.float32))
    adata.obs_names = [f"cell{i}" for i in range(60)]
    SCVI.setup_anndata(adata)
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2)


def poison(model: SCVI, *cells: int, value: float = float("nan")) -> None:
    """Make the counts of some cells not finite behind the model's back."""
    assert model.rows is not None
    model.rows.columns["counts"].values[list(cells), 3] = value  # type: ignore[attr-defined]
    from cellvae.data.storage.fingerprint import fingerprint

    model.fingerprint = fingerprint(model.rows)


def flat(model: SCVI) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.module.state_dict().values()])


class BadGradient(pl.Callback):
    """Spoils the gradient of one parameter in some batches, and keeps the weights after steps."""

    def __init__(self, *batches: tuple[int, int], name: str = "px_r") -> None:
        self.batches = batches
        self.name = name
        self.after: dict[tuple[int, int], torch.Tensor] = {}

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch, self.batch) in self.batches:
            grad = dict(pl_module.module.named_parameters())[self.name].grad
            grad[0] = float("inf")

    def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        self.batch = rest[-1]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        state = pl_module.module.state_dict().values()
        key = (trainer.current_epoch, rest[-1])
        self.after[key] = torch.cat([p.detach().double().flatten() for p in state])


def test_a_bad_cell_ends_the_run_and_is_named(model: SCVI) -> None:
    poison(model, 7, 30)
    model.module.double()  # counts of any type; the guard looks at what comes out
    model.module.float()
    kwargs = {**WORDS, "datasplitter_kwargs": {"external_indexing": [range(50), range(50, 60)]}}
    before = flat(model)
    with pytest.raises(TrainingError, match=r"loss was not finite in epoch 0") as info:
        model.train(3, seed=0, **kwargs)
    report = model.training_report
    assert report is not None and report.nan is not None
    assert report.status == "not_finite"
    assert report.nan["quantity"] == "loss"
    assert set(report.nan["cells"]) <= {"cell7", "cell30"}
    assert report.nan["cells"][0] in str(info.value)
    assert "z_encoder" in report.nan["part"]
    assert torch.equal(before, flat(model))
    assert not model.is_trained


def test_skipped_batches_leave_no_trace(model: SCVI) -> None:
    poison(model, 7)
    kwargs = {**WORDS, "datasplitter_kwargs": {"external_indexing": [range(50), range(50, 60)]}}
    model.train(4, seed=0, on_nan="skip_batch", check_val_every_n_epoch=1, **kwargs)
    report = model.training_report
    assert report is not None and report.nan is not None
    assert report.status == "completed"
    assert report.n_skipped == 4  # one batch of each epoch has the cell
    assert report.nan["cells"] == ["cell7"]
    assert bool(torch.isfinite(flat(model)).all())
    table = model.history.table
    assert np.isfinite(table.to_numpy()).all()
    # 50 cells are three batches of 16 and the rest, which joins the last; without one batch the
    # means are those of the other cells.
    assert table["elbo_train"].iloc[-1] < table["elbo_train"].iloc[0]


def test_a_skipped_step_changes_weights_moments_and_statistics_by_not_one_bit(model: SCVI) -> None:
    bad = BadGradient((1, 1))
    model.train(2, seed=0, on_nan="skip_batch", callbacks=bad, **WORDS)
    assert torch.equal(bad.after[1, 0], bad.after[1, 1])
    assert not torch.equal(bad.after[1, 1], bad.after[1, 2])
    assert model.training_report is not None
    assert model.training_report.nan == {
        "quantity": "gradient",
        "epoch": 1,
        "batch": 1,
        "parameters": ["px_r"],
        "part": None,
        "cells": [],
    }


def test_a_bad_gradient_ends_the_run_with_the_last_finite_weights(model: SCVI) -> None:
    bad = BadGradient((2, 1), name="decoder.px_decoder.fc_layers.Layer 0.0.weight")
    with pytest.warns(TrainingWarning, match=r"last finite weights are back.*outliers"):
        model.train(5, seed=0, callbacks=bad, **WORDS)
    report = model.training_report
    assert report is not None
    assert report.status == "not_finite"
    assert "decoder.px_decoder" in report.reason
    assert torch.equal(flat(model), bad.after[2, 0])
    assert model.is_trained
    assert not model.module.training
    assert np.isfinite(model.get_latent_representation()).all()


def test_the_best_weights_come_back_where_something_was_monitored(model: SCVI) -> None:
    bad = BadGradient((3, 0))
    with pytest.warns(TrainingWarning, match="best weights are back"):
        model.train(6, seed=0, callbacks=bad, early_stopping=True, **WORDS)
    report = model.training_report
    assert report is not None
    assert report.restored_epoch == report.best_epoch
    best = model.history["elbo_validation"]["elbo_validation"]
    assert report.best_score == pytest.approx(best.min())


def test_raise_raises_with_good_weights(model: SCVI) -> None:
    bad = BadGradient((2, 1))
    with pytest.raises(TrainingError, match=r"gradient was not finite in epoch 2 \(batch 1\)"):
        model.train(5, seed=0, callbacks=bad, on_nan="raise", **WORDS)
    assert torch.equal(flat(model), bad.after[2, 0])
    assert model.is_trained
    assert model.history.epochs == [0, 1]


def test_a_further_run_that_raises_is_undone(model: SCVI) -> None:
    model.train(2, seed=0, **WORDS)
    before, history = flat(model), model.history
    with pytest.raises(TrainingError, match="epoch 2"):
        model.train(5, callbacks=BadGradient((0, 1)), on_nan="raise", **WORDS)
    assert torch.equal(before, flat(model))
    assert model.history is history
    assert model.is_trained


def test_weights_that_an_update_made_infinite_are_those_of_the_epoch_before(model: SCVI) -> None:
    class Explode(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                self.good = torch.cat(
                    [p.detach().double().flatten() for p in pl_module.module.state_dict().values()]
                )
                trainer.optimizers[0].param_groups[0]["lr"] = 1e38

    explode = Explode()
    with pytest.warns(TrainingWarning, match="last finite weights"):
        model.train(5, seed=0, callbacks=explode, **WORDS)
    assert torch.equal(flat(model), explode.good)


def test_ignored_means_not_looked_at(model: SCVI) -> None:
    bad = BadGradient((0, 1))
    model.train(2, seed=0, callbacks=bad, on_nan="ignore", **WORDS)
    assert not bool(torch.isfinite(bad.after[1, 2]).all())
    assert model.training_report is not None
    assert model.training_report.nan is None


def test_too_many_skipped_batches_end_the_run(model: SCVI) -> None:
    bad = BadGradient((1, 0), (1, 1), (1, 2))
    with pytest.warns(TrainingWarning, match="not finite"):
        model.train(5, seed=0, callbacks=[bad, NaNGuard("skip_batch", max_skipped=0.5)], **WORDS)
    assert model.training_report is not None
    assert model.training_report.n_skipped == 3
    assert model.training_report.epochs == 2


def test_the_guard_changes_no_bit_of_a_healthy_run(model: SCVI) -> None:
    results = []
    for word in ("stop_restore", "ignore", "skip_batch"):
        torch.manual_seed(0)
        other = SCVI(model.adata, n_hidden=8, n_latent=2)
        other.train(3, seed=0, on_nan=word, **WORDS)
        results.append((flat(other), other.history.table))
    assert all(torch.equal(results[0][0], weights) for weights, _ in results)
    assert all(results[0][1].equals(table) for _, table in results)


@pytest.mark.parametrize("kwargs", [{"on_nan": "skip_bach"}, {"max_skipped": 0.0}])
def test_wrong_words_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(kwargs))):
        NaNGuard(**kwargs)


class AsOnGPU(NaNGuard):
    """Reads nothing before the epoch ends, as on a GPU."""

    def checks_every_step(self, device: torch.device) -> bool:
        return False


@pytest.mark.parametrize("optimizer", ["fused", "plain"])
def test_without_a_look_a_skipped_step_changes_nothing_either(model: SCVI, optimizer: str) -> None:
    plan: dict[str, Any] = {}
    if optimizer == "plain":
        plan = {"optimizer": "Custom", "optimizer_creator": lambda p: torch.optim.SGD(p, lr=1e-3)}
    results = []
    for guard in (AsOnGPU("skip_batch"), NaNGuard("skip_batch")):
        torch.manual_seed(0)
        other, bad = SCVI(model.adata, n_hidden=8, n_latent=2), BadGradient((1, 1), (2, 0))
        other.train(4, seed=0, callbacks=[bad, guard], plan_kwargs=plan, **WORDS)
        report = other.training_report
        assert report is not None and report.nan is not None
        assert torch.equal(bad.after[1, 0], bad.after[1, 1])
        assert torch.equal(bad.after[1, 3], bad.after[2, 0])
        results.append((flat(other), other.history.table, report.nan, report.n_skipped))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1].equals(results[1][1])
    assert results[0][2:] == results[1][2:]
    assert results[0][3] == 2


def test_without_a_look_the_rest_of_the_epoch_is_left_out_and_the_run_ends(model: SCVI) -> None:
    poison(model, 7)
    kwargs = {**WORDS, "datasplitter_kwargs": {"external_indexing": [range(50), range(50, 60)]}}
    guard, seen = AsOnGPU(), BadGradient()
    with pytest.raises(TrainingError, match=r"loss was not finite in epoch 0.*'cell7'"):
        model.train(3, seed=0, callbacks=[guard, seen], **kwargs)
    assert guard.event is not None
    first = guard.event.batch
    after = [seen.after[0, i] for i in range(first, 3)]
    assert all(torch.equal(after[0], each) for each in after)
    assert bool(torch.isfinite(after[0]).all())


@pytest.mark.gpu
@pytest.mark.parametrize("word", ["stop_restore", "skip_batch"])
def test_on_a_gpu_the_step_is_left_out_without_a_look_at_it(model: SCVI, word: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    bad = BadGradient((1, 1))
    kwargs = {**WORDS, "accelerator": "cuda"}
    if word == "stop_restore":
        with pytest.warns(TrainingWarning, match="not finite"):
            model.train(4, seed=0, on_nan=word, callbacks=bad, **kwargs)
    else:
        model.train(4, seed=0, on_nan=word, callbacks=bad, **kwargs)
    assert torch.equal(bad.after[1, 0], bad.after[1, 1])
    assert bool(torch.isfinite(flat(model)).all())


def test_real_cells_with_one_bad_cell(shared_data: Any) -> None:
    adata = read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[::40].copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_hidden=16)
    assert model.rows is not None
    column: Any = model.rows.columns["counts"]
    cells = [*range(300)]
    column.data = column.data.copy()
    column.data[column.indptr[123]] = np.nan
    from cellvae.data.storage.fingerprint import fingerprint

    model.fingerprint = fingerprint(model.rows)
    split = {"external_indexing": [cells, range(300, adata.n_obs)]}
    model.train(3, seed=0, on_nan="skip_batch", datasplitter_kwargs=split,
                accelerator="cpu", enable_progress_bar=False)  # fmt: skip
    report = model.training_report
    assert report is not None and report.nan is not None
    assert report.nan["cells"] == [adata.obs_names[123]]
    assert report.n_skipped == 3

"""Steps replayed from a CUDA graph train as ordinary steps do; when steps are captured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.errors import TrainingWarning
from cellvae.model import SCANVI, SCVI
from cellvae.model.amortized_lda import AmortizedLDAModule
from cellvae.model.scvi import SCVIModule
from cellvae.train import NaNGuard
from cellvae.train.callbacks.monitoring.gradient_norm import GradNormMonitor
from cellvae.train.loop import cuda_graph
from cellvae.train.loop.cuda_graph import choose_capture
from cellvae.train.loop.step_loop import StepLoop
from cellvae.train.loop.steps_per_block import StepsPerBlock
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
)
from cellvae.train.options.train_options import CompileOptions, TrainOptions
from cellvae.train.run import placement

QUICK: dict[str, Any] = {
    "max_epochs": 4,
    "batch_size": 16,
    "seed": 0,
    "enable_progress_bar": False,
    "check_val_every_n_epoch": 1,
}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Tape:
    """Capturer whose replay runs the step again, from the tensors that the graph reads."""

    made: list[Tape] = []

    def __init__(self, device: torch.device) -> None:
        self.n_warmed_up = self.n_recorded = self.n_replayed = 0
        Tape.made.append(self)

    def warm_up(self, step: Callable[[], None]) -> None:
        self.n_warmed_up += 1
        step()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        self.n_recorded += 1

        def play() -> None:
            self.n_replayed += 1
            step()

        return play


class Torn(Tape):
    """Capturer whose captures fail."""

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Steps are captured on the CPU too."""
    Tape.made = []
    monkeypatch.setattr(cuda_graph, "why_not_capturable", lambda *_: "")
    monkeypatch.setattr(placement, "CUDAGraphCapturer", Tape)
    return Tape.made


@pytest.fixture
def made() -> Callable[..., Any]:
    adata = cellvae.data.synthetic_iid(batch_size=100, n_genes=12, n_proteins=0, n_regions=0)
    adata.obs["seen"] = np.where(np.arange(200) % 3 == 0, "Unknown", adata.obs["labels"])

    def make(kind: Any = SCVI) -> Any:
        if kind is SCANVI:
            SCANVI.setup_anndata(adata, "seen", "Unknown", batch_key="batch")
        else:
            kind.setup_anndata(adata, batch_key="batch", labels_key="labels")
        torch.manual_seed(0)
        return kind(adata, n_hidden=8, n_latent=3)

    return make


def same(first: Any, second: Any) -> bool:
    one, two = first.module.state_dict(), second.module.state_dict()
    return all(torch.equal(one[k], two[k]) for k in one) and first.history.table.equals(
        second.history.table
    )


@pytest.mark.trains
@pytest.mark.parametrize("kind", [SCVI, SCANVI])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"on_nan": "ignore"},
        {"early_stopping": True, "early_stopping_patience": 1},
        {"plan_kwargs": {"optimizer": "AdamW", "weight_decay": 0.1}},
        {"plan_kwargs": {"adversarial_classifier": True, "kl_weight": 0.3}},
        {"plan_kwargs": {"n_steps_kl_warmup": 20, "n_epochs_kl_warmup": None}},
        {"steps_per_block": 5},
    ],
    ids=str,
)
def test_a_run_of_replayed_steps_is_the_same_run(
    made: Callable[..., Any], kind: Any, kwargs: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    plain = made(kind)
    plain.train(**QUICK, accelerator="cpu", **kwargs)
    assert plain.training_report.capture_reason == "not requested (capture_steps=True)"
    tapes = request.getfixturevalue("recorded")
    model = made(kind)
    model.train(**QUICK, accelerator="cpu", **kwargs)
    assert same(model, plain)
    (tape,) = tapes
    # 180 cells are 11 full batches and one of 4 cells, which is never played.
    assert (tape.n_warmed_up, tape.n_recorded) == (3, 1)
    assert tape.n_replayed == 4 * 11 - 3
    assert model.training_report.capture_reason == "41 steps replayed from a CUDA graph"


@pytest.mark.trains
def test_steps_are_counted_and_a_run_can_continue(
    made: Callable[..., Any], recorded: list[Tape], tmp_path: Path
) -> None:
    class Cut(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                assert trainer.global_step == 2 * 12
                raise KeyboardInterrupt

    kwargs = {**QUICK, "accelerator": "cpu", "resume": "auto"}
    whole, cut, again = made(), made(), made()
    whole.train(**kwargs, run_dir=tmp_path / "whole")
    cut.train(**kwargs, run_dir=tmp_path / "cut", callbacks=[Cut()])
    again.train(**kwargs, run_dir=tmp_path / "cut")
    assert same(whole, again)


@pytest.mark.trains
def test_another_learning_rate_is_captured_again(
    made: Callable[..., Any], recorded: list[Tape]
) -> None:
    class Halves(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                for group in trainer.optimizers[0].param_groups:
                    group["lr"] /= 2

    made().train(**QUICK, accelerator="cpu", callbacks=[Halves()])
    (tape,) = recorded
    assert (tape.n_warmed_up, tape.n_recorded) == (6, 2)


@pytest.mark.trains
def test_steps_are_captured_again_when_the_classifier_has_nothing_to_do(
    made: Callable[..., Any], recorded: list[Tape]
) -> None:
    # The KL weight is 1 from the third epoch of four on.
    made().train(**QUICK, accelerator="cpu", adversarial_classifier=True)
    (tape,) = recorded
    assert (tape.n_warmed_up, tape.n_recorded) == (6, 2)


@pytest.mark.trains
def test_a_step_that_cannot_be_captured_runs_without_a_graph(
    made: Callable[..., Any], recorded: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "CUDAGraphCapturer", Torn)
    model = made()
    model.train(**QUICK, accelerator="cpu")
    reason = "RuntimeError: operation not permitted when stream is capturing"
    assert model.training_report.capture_reason == reason
    monkeypatch.setattr(cuda_graph, "why_not_capturable", lambda *_: "not today")
    plain = made()
    plain.train(**QUICK, accelerator="cpu")
    assert plain.training_report.capture_reason == "not today"
    assert same(model, plain)


@pytest.mark.trains
@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("on_nan", ["skip_batch", "stop_restore"])
def test_what_is_not_finite_is_found_in_replayed_steps(
    made: Callable[..., Any],
    recorded: list[Tape],
    monkeypatch: pytest.MonkeyPatch,
    on_nan: Any,
    adversarial: bool,
) -> None:
    loss, seen = SCVIModule.loss, []

    def spoiled(self: Any, batch: Any, weight: Any) -> Any:
        found = loss(self, batch, weight)
        if not self.training:
            return found
        seen.append(len(seen))
        factor = torch.tensor(float("nan")) if len(seen) == 17 else torch.ones(())
        return found._replace(loss=found.loss * factor)

    monkeypatch.setattr(SCVIModule, "loss", spoiled)
    monkeypatch.setattr(NaNGuard, "checks_every_step", lambda *_: False)
    model = made()
    told = on_nan == "stop_restore"
    with pytest.warns(TrainingWarning, match="epoch 1") if told else nullcontext():
        model.train(**QUICK, accelerator="cpu", on_nan=on_nan, adversarial_classifier=adversarial)
    report = model.training_report
    # The fifth step of the second epoch, which has twelve.
    assert report.nan is not None
    assert (report.nan["epoch"], report.nan["batch"]) == (1, 4)
    assert report.n_skipped == 1
    assert report.epochs == (4 if on_nan == "skip_batch" else 2)
    assert all(torch.isfinite(v).all() for v in model.module.state_dict().values())


CUDA = torch.device("cuda")
MANY = StepsPerBlock(number=50, reason="nothing watches single steps")


CASES: list[Any] = [
    ({}, [NaNGuard()], CUDA, "device", ""),
    ({}, [], torch.device("cpu"), "device", "the run is on cpu"),
    ({}, [], CUDA, "memory", "the cells are not on the device"),
    ({"capture_steps": False}, [], CUDA, "device", "not requested (capture_steps=True)"),
    ({"compile": CompileOptions(enabled=True)}, [], CUDA, "device", "the loss is compiled"),
    ({"trainer": {"deterministic": True}}, [], CUDA, "device", "deterministic is given"),
    (
        {"optimizer": OptimizerOptions(optimizer="Custom", optimizer_creator=torch.optim.SGD)},
        [],
        CUDA,
        "device",
        "the optimizer is one of the user's own",
    ),
    ({}, [GradNormMonitor()], CUDA, "device", "GradNormMonitor has hooks at every step"),
]


@pytest.mark.parametrize(
    ("kwargs", "callbacks", "device", "placed", "reason"),
    CASES,
    ids=[case[-1] or "nothing" for case in CASES],
)
def test_why_steps_are_not_captured(
    made: Callable[..., Any],
    kwargs: dict[str, Any],
    callbacks: list[Any],
    device: torch.device,
    placed: str,
    reason: str,
) -> None:
    module = made().module
    found = choose_capture(
        TrainOptions(**{"capture_steps": True} | kwargs), callbacks, module, MANY, device, placed
    )
    assert found.wanted == (not reason)
    assert found.reason == (reason or "one CUDA graph for all full batches")


def test_single_steps_and_pyro_are_not_captured(made: Callable[..., Any]) -> None:
    options, module = TrainOptions(capture_steps=True), made().module
    single = StepsPerBlock(number=1, reason="single steps: every step is logged")
    found = choose_capture(options, [], module, single, CUDA, "device")
    assert found.reason == "single steps: every step is logged"
    assert not AmortizedLDAModule.cuda_graph_safe


def counted(n_cells: int = 2000, n_genes: int = 300) -> AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.3, 1, size=(n_cells, n_genes))).astype(np.float32)
    from scipy import sparse

    adata = AnnData(sparse.csr_matrix(counts))
    adata.obs["batch"] = np.where(rng.random(n_cells) < 0.5, "a", "b")
    return adata


@needs_gpu
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_a_gpu_replays_steps_that_train_as_others_do(likelihood: str) -> None:
    adata = counted()
    SCVI.setup_anndata(adata, batch_key="batch")
    found = []
    for kwargs in ({"capture_steps": True}, {}, {"placement": "memory"}):
        torch.manual_seed(0)
        model = SCVI(adata, gene_likelihood=likelihood)
        model.train(**QUICK | {"batch_size": 128}, accelerator="cuda", **kwargs)
        found.append(model)
    played, plain, moved = found
    assert "replayed from a CUDA graph" in played.training_report.capture_reason
    assert played.training_report.placement == "device"
    assert moved.training_report.placement == "memory"
    for model in (plain, moved):
        np.testing.assert_allclose(
            played.history["elbo_validation"], model.history["elbo_validation"], rtol=1e-3
        )


@needs_gpu
def test_no_step_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    adata = counted()
    SCVI.setup_anndata(adata, batch_key="batch")
    make, blocks = StepLoop.run_block, []

    def run_block(self: Any, block: Any) -> None:
        # The first block captures the graph, which waits for the device.
        torch.cuda.set_sync_debug_mode("error" if blocks else "default")
        blocks.append(block)
        try:
            make(self, block)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(StepLoop, "run_block", run_block)
    model = SCVI(adata)
    model.train(
        **QUICK | {"batch_size": 128}, accelerator="cuda", steps_per_block=5, capture_steps=True
    )
    assert len(blocks) > 4
    assert "replayed from a CUDA graph" in model.training_report.capture_reason

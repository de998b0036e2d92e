"""When steps are captured in a CUDA graph, and, where there is a GPU, that they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.model import SCANVI, SCVI
from cellvae.model.amortized_lda import AmortizedLDAModule
from cellvae.train import NaNGuard
from cellvae.train.callbacks.monitoring.gradient_norm import GradNormMonitor
from cellvae.train.loop.cuda_graph import choose_capture
from cellvae.train.loop.step_loop import StepLoop
from cellvae.train.loop.steps_per_block import StepsPerBlock
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
)
from cellvae.train.options.train_options import CompileOptions, TrainOptions

QUICK: dict[str, Any] = {
    "max_epochs": 4,
    "batch_size": 16,
    "seed": 0,
    "enable_progress_bar": False,
    "check_val_every_n_epoch": 1,
}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


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


CUDA = torch.device("cuda")
MANY = StepsPerBlock(number=50, reason="nothing watches single steps")


CASES: list[Any] = [
    ({}, [NaNGuard()], CUDA, "device", ""),
    ({}, [], torch.device("cpu"), "device", "the run is on cpu"),
    ({}, [], CUDA, "memory", "the cells are not on the device"),
    ({"capture_steps": False}, [], CUDA, "device", "capture_steps=False"),
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
    for kwargs in ({}, {"capture_steps": False}, {"placement": "memory"}):
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

"""What a step costs on a GPU, by its recorded operations: an expectation, not a measurement.

Run with the Python that has cellvae: `python benchmarks/step_operations.py`. One step of each model
is recorded on the CPU, on the path of a CUDA device, by the recorder of the tests. Each operation
that launches a kernel is counted with the bytes that it reads and writes and its floating point
operations. Its time on the device is the larger of what memory and arithmetic of an H100 allow; in
a run without a graph an operation takes at least the time that Python and torch need to launch it,
in a CUDA graph that of a node.

A table in Markdown goes to standard output. Dropout is three operations on the CPU and one on CUDA,
and counts as one here.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData

import cellvae
from cellvae.core.platform.device_kind import emulate_cuda
from cellvae.data.storage import placement as storage_placement
from cellvae.train.run import placement

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "train" / "capture"))

from recorder import Operation, Recorder, tensors_in

BYTES_PER_SECOND = 3.3e12
FLOPS, FLOPS_OF_PRODUCTS = 60e12, 250e12
"""Of an H100: float32 on vectors, and tf32 on matrices."""
EAGER_SECONDS, NODE_SECONDS = 5e-6, 0.7e-6
"""Time to launch one operation from Python, and one node of a CUDA graph."""
N_PROTEINS = 20
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
GATHERS = {"index", "index_select", "embedding", "gather"}
ON_CUDA_ONE_KERNEL_LESS = {"bernoulli_", "div_"}
"""Operations of dropout on the CPU that are part of one kernel on CUDA."""


def n_bytes(operation: Operation) -> int:
    """Bytes that an operation reads and writes; of a gather, only those that it gathers."""
    written = [t for t in operation.outputs if t is not None]
    tensors = [*written, *tensors_in((operation.args, operation.kwargs))]
    if operation.name in GATHERS:
        tensors = written * 2
    return sum(t.numel() * t.element_size() for t in tensors)


def n_flops(operation: Operation) -> int:
    """Floating point operations: of products all, of others one for each result or argument."""
    tensors = [t for t in operation.outputs if t is not None]
    if operation.name in PRODUCTS:
        factors = [t for t in tensors_in(operation.args) if t.ndim >= 2][-2:]
        return 2 * factors[0].numel() * factors[1].shape[-1]
    tensors = tensors or list(tensors_in(operation.args))[:1]
    return sum(t.numel() for t in tensors)


def device_seconds(operation: Operation) -> float:
    """Least time of an operation on the device."""
    rate = FLOPS_OF_PRODUCTS if operation.name in PRODUCTS else FLOPS
    return max(n_bytes(operation) / BYTES_PER_SECOND, n_flops(operation) / rate)


def recorded_step(model: Any) -> list[Operation]:
    """Operations of one step of 128 cells that launch a kernel on CUDA."""
    Recorder.made = []
    with emulate_cuda(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(
            max_epochs=3,
            # Some models have another default, which an argument of 128 does not override.
            trainer_config={"batch_size": 128},
            train_size=1.0,
            seed=0,
            accelerator="cpu",
            capture_steps=True,
            enable_progress_bar=False,
            early_stopping=False,
        )
    if not any(recorder.recordings for recorder in Recorder.made):
        raise SystemExit(f"No step was recorded: {model.training_report.capture_reason}")
    recording = Recorder.made[-1].recordings[0]
    return [each for each in recording.kernels if each.name not in ON_CUDA_ONE_KERNEL_LESS]


def models(n_features: int) -> dict[str, Callable[[], Any]]:
    """Functions that make each model with its default options."""
    cells = cellvae.data.synthetic_iid(
        350, n_genes=n_features, n_proteins=N_PROTEINS, n_regions=n_features, n_labels=3
    )
    accessible = cells.obsm["accessibility"].astype("float32")
    regions = AnnData(accessible, obs=cells.obs.copy())
    both = AnnData(np.hstack([cells.X, accessible]), obs=cells.obs.copy())
    both.var["feature_types"] = np.repeat(["Gene Expression", "Peaks"], n_features)

    def make(name: str, adata: AnnData, setup: dict[str, Any], **config: Any) -> Callable[[], Any]:
        def made() -> Any:
            kind = getattr(cellvae.model, name)
            kind.setup_anndata(adata, batch_key="batch", **setup)
            return kind(adata, **config)

        return made

    def solo() -> Any:
        model = make("SCVI", cells, {})()
        model.is_trained = True
        return cellvae.external.SOLO.from_scvi_model(model)

    labels = {"labels_key": "labels", "unlabeled_category": "label_0"}
    proteins = {"protein_expression_obsm_key": "protein_expression"}
    return {
        "SCVI, zinb": make("SCVI", cells, {}),
        "SCVI, nb": make("SCVI", cells, {}, gene_likelihood="nb"),
        "SCANVI": make("SCANVI", cells, labels),
        "LinearSCVI": make("LinearSCVI", cells, {}),
        "PEAKVI": make("PEAKVI", regions, {}),
        "POISSONVI": make("POISSONVI", regions, {}),
        "TOTALVI": make("TOTALVI", cells, proteins),
        "MULTIVI": make("MULTIVI", both, {}),
        "SOLO": solo,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=2000, help="genes, and regions")
    parser.add_argument("--models", nargs="*", default=[], help="names; by default all")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    storage_placement.free_device_memory = lambda *_: 2**40  # type: ignore[assignment]
    placement.CUDAGraphCapturer = Recorder  # type: ignore[assignment,misc]
    print("| model | operations | MB | Mflop | floor, us | eager, us | graph, us | times faster |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, make in models(arguments.features).items():
        if arguments.models and name not in arguments.models:
            continue
        steps = recorded_step(make())
        floors = [device_seconds(each) for each in steps]
        eager = math.fsum(max(EAGER_SECONDS, each) for each in floors)
        graph = math.fsum(max(NODE_SECONDS, each) for each in floors)
        figures = (len(steps), sum(map(n_bytes, steps)) / 1e6, sum(map(n_flops, steps)) / 1e6)
        times = (math.fsum(floors) * 1e6, eager * 1e6, graph * 1e6)
        columns = [f"{value:,.0f}" for value in (*figures, *times)]
        print("|", " | ".join([name, *columns, f"{eager / graph:.1f}"]), "|", flush=True)


if __name__ == "__main__":
    main()

"""Forked processes compute, on as many threads as their parent, instead of waiting for ever."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellvae import settings
from cellvae.core.platform import fork as fork_module
from cellvae.core.platform.fork import fork, openmp_libraries, pause_library, pause_openmp
from cellvae.data import synthetic_iid
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.trains,
]


@pytest.fixture(params=[300, 20], ids=["compiled", "torch"])
def model(request: pytest.FixtureRequest) -> Iterator[SCVI]:
    """Trained model, in a process whose team of two threads has run in kernels and in torch."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    adata = synthetic_iid(batch_size=100, n_genes=request.param)
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    made = SCVI(adata, n_hidden=16)
    train(made)
    parallel_in_torch()
    yield made
    torch.set_num_threads(n_threads)


def train(model: SCVI) -> None:
    model.train(1, accelerator="cpu", enable_progress_bar=False, seed=0)


def parallel_in_torch() -> float:
    """Result of operations that torch does in parallel."""
    grid = torch.linspace(0, 1, 600 * 600).view(600, 600)
    return float((grid @ grid).exp().log().sum())


def n_threads_of_process() -> int:
    return len([*Path("/proc/self/task").iterdir()])


def answers(model: SCVI) -> dict[str, Any]:
    """What a process finds out about a model, trained further at the end."""
    torch.manual_seed(1)
    found = {
        "threads": torch.get_num_threads(),
        "sum": parallel_in_torch(),
        "latent": model.get_latent_representation(),
        "elbo": float(model.get_elbo()),
    }
    train(model)
    return found | {"trained": model.get_latent_representation()}


def in_forked_child(function: Callable[[], Any]) -> Any:
    """Result of a function in a forked process; fails after a minute."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(function()))
    child.start()
    try:
        assert receive.poll(60), "the forked process hangs"
        return receive.recv()
    finally:
        child.kill()
        child.join()


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_forked_child_asks_and_trains_with_the_same_results(model: SCVI) -> None:
    child = in_forked_child(lambda: answers(model))
    assert child["threads"] == 2
    # The parent goes on as well, with the threads that it starts anew.
    assert_same(child, answers(model))


def test_children_of_a_child_compute_too(model: SCVI) -> None:
    wanted = model.get_latent_representation()
    found = in_forked_child(
        lambda: (
            model.get_latent_representation(),
            in_forked_child(model.get_latent_representation),
        )
    )
    assert all(np.array_equal(latent, wanted) for latent in found)


def test_a_fork_from_a_thread_that_has_computed_does_not_hang(model: SCVI) -> None:
    found: list[Any] = []

    def compute_and_fork() -> None:
        parallel_in_torch()
        found.append(in_forked_child(model.get_latent_representation))

    thread = threading.Thread(target=compute_and_fork)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], model.get_latent_representation())


def test_joblib_with_processes_that_are_forked(model: SCVI) -> None:
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_config("multiprocessing", n_jobs=2):
        tasks = (joblib.delayed(model.get_latent_representation)(indices=[i]) for i in range(4))
        rows = joblib.Parallel(timeout=60)(tasks)
    np.testing.assert_allclose(
        np.concatenate(rows), model.get_latent_representation(indices=range(4)), atol=1e-6
    )


def test_threads_that_cannot_be_ended_leave_a_child_with_one(
    model: SCVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = model.get_latent_representation()
    monkeypatch.setattr(fork_module, "openmp_libraries", lambda: [])

    def child() -> tuple[int, str, Any]:
        with pytest.raises(InvalidOptionError) as error:
            settings.num_threads = 2
        latent = model.get_latent_representation()
        train(model)
        return torch.get_num_threads(), str(error.value), latent

    n_threads, message, latent = in_forked_child(child)
    assert n_threads == 1
    assert "forked" in message and "'spawn'" in message
    np.testing.assert_allclose(latent, wanted, rtol=1e-5, atol=1e-6)
    assert torch.get_num_threads() == 2 and not fork.single_thread_in_child


def test_the_library_of_torch_is_found_and_its_threads_end(model: SCVI) -> None:
    n_epochs_before = n_threads_of_process()
    parallel_in_torch()
    assert any("torch" in path for path in openmp_libraries())
    assert pause_openmp()
    assert n_threads_of_process() <= max(1, n_epochs_before - 1)
    parallel_in_torch()


def test_a_library_that_cannot_pause_says_so(tmp_path: Path) -> None:
    assert not pause_library(str(tmp_path / "libgomp.so.1"))
    assert not pause_library("libc.so.6")

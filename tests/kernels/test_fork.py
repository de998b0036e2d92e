"""Forked processes compute on one thread instead of waiting for threads that they do not have."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import numpy as np
import pytest
import torch

from cellvae.data import synthetic_iid
from cellvae.model import SCVI

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
    # Python 3.12 warns of forks of processes with threads, which is what is tested.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture
def model() -> Any:
    """Trained model, in a process whose team of two threads has run."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    adata = synthetic_iid(batch_size=100, n_genes=300)
    SCVI.setup_anndata(adata, batch_key="batch")
    made = SCVI(adata, n_hidden=16)
    made.train(1, accelerator="cpu", enable_progress_bar=False)
    (torch.randn(500, 500) @ torch.randn(500, 500)).sum()
    yield made
    torch.set_num_threads(n_threads)


def latent_and_elbo(model: Any, found: Any) -> None:
    found.put((torch.get_num_threads(), model.get_latent_representation(), float(model.get_elbo())))


def train_again(model: Any, found: Any) -> None:
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    torch.set_num_threads(1)
    found.put(model.training_report.status)


def in_forked_child(function: Any, model: Any) -> Any:
    """What a function puts into a queue in a forked process; fails after a minute."""
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    child = context.Process(target=function, args=(model, found))
    child.start()
    try:
        return found.get(timeout=60)
    finally:
        child.kill()
        child.join()


def test_inference_in_a_forked_child_has_the_same_results(model: Any) -> None:
    n_threads, latent, elbo = in_forked_child(latent_and_elbo, model)
    assert n_threads == 1
    np.testing.assert_allclose(latent, model.get_latent_representation(), rtol=1e-5, atol=1e-6)
    assert elbo == pytest.approx(float(model.get_elbo()), rel=0.05)
    assert torch.get_num_threads() == 2


def test_a_model_is_trained_in_a_forked_child(model: Any) -> None:
    assert in_forked_child(train_again, model) == "completed"

"""The largest batch that fits, where what fits is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anndata import read_h5ad
from torch import Tensor

from cellvae.contracts import Loss
from cellvae.data import Split
from cellvae.errors import InvalidDataError, InvalidOptionError, TrainingError
from cellvae.model import SCVI
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.scvi import SCVIConfig, SCVIModule, SCVISizes
from cellvae.train.search.batch_size_search import find_batch_size

TRIED: list[int] = []
ERRORS = {
    "torch": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "python": MemoryError,
    "allocator": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
}


class Limited(SCVIModule):
    """Network with memory for so many cells."""

    limit = 10**9
    error = "torch"

    def loss(self, batch: CountBatch, kl_weight: Tensor) -> Loss:
        TRIED.append(len(batch.counts))
        if len(batch.counts) > self.limit:
            raise ERRORS[self.error]()
        return super().loss(batch, kl_weight)


@pytest.fixture
def limited() -> Limited:
    TRIED.clear()
    torch.manual_seed(0)
    return Limited(SCVISizes(n_genes=12), SCVIConfig(n_hidden=8, n_latent=2))


def sizes() -> list[int]:
    return list(dict.fromkeys(TRIED))


@pytest.mark.parametrize(
    ("limit", "kwargs", "wanted", "tried"),
    [
        (10**9, {"start": 4}, 50, [4, 8, 16, 32, 50]),
        (10**9, {"start": 4, "max_val": 20}, 20, [4, 8, 16, 20]),
        (10**9, {}, 50, [50]),
        (21, {"start": 4}, 16, [4, 8, 16, 32]),
        (21, {"start": 4, "mode": "binsearch", "margin": 0.0}, 21, [4, 8, 16, 32, 24, 20, 22, 21]),
        (21, {"start": 4, "mode": "binsearch", "margin": 0.1}, 18, [4, 8, 16, 32, 24, 20, 22, 21]),
        (10**9, {"start": 4, "mode": "binsearch", "margin": 0.1}, 50, [4, 8, 16, 32, 50]),
        (21, {"start": 40}, 20, [40, 20]),
        (10**9, {"start": 4, "max_trials": 3}, 16, [4, 8, 16]),
    ],
)
def test_what_fits_is_found(
    limited: Limited,
    rows: Any,
    split: Split,
    limit: int,
    kwargs: dict[str, Any],
    wanted: int,
    tried: list[int],
) -> None:
    limited.limit = limit
    assert find_batch_size(limited, rows, split.train, seed=0, **kwargs) == wanted
    assert sizes() == tried


@pytest.mark.parametrize("error", ERRORS)
def test_every_way_to_say_that_memory_is_used_up_is_known(
    limited: Limited, rows: Any, split: Split, error: str
) -> None:
    limited.limit, limited.error = 10, error
    assert find_batch_size(limited, rows, split.train, seed=0, start=8) == 8


def test_every_size_is_tried_for_some_steps(limited: Limited, rows: Any, split: Split) -> None:
    find_batch_size(limited, rows, split.train, seed=0, start=10, max_val=20, steps_per_trial=4)
    assert TRIED == [10] * 4 + [20] * 4


def test_nothing_is_changed(limited: Limited, rows: Any, split: Split) -> None:
    limited.limit = 20
    limited.eval()
    state = {k: v.clone() for k, v in limited.state_dict().items()}
    torch.manual_seed(5)
    generator = torch.get_rng_state()
    find_batch_size(limited, rows, split.train, seed=0, start=4)
    assert all(torch.equal(v, state[k]) for k, v in limited.state_dict().items())
    assert not any(m.training for m in limited.modules())
    assert all(p.grad is None for p in limited.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    limited: Limited, rows: Any, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ERRORS, "torch", lambda: RuntimeError("shapes do not match"))
    limited.limit = 10
    with pytest.raises(RuntimeError, match="shapes do not match"):
        find_batch_size(limited, rows, split.train, seed=0)


def test_a_model_that_never_fits_is_told(limited: Limited, rows: Any, split: Split) -> None:
    limited.limit = 1
    with pytest.raises(TrainingError, match="one of 3 cells did not. Make the model smaller"):
        find_batch_size(limited, rows, split.train, seed=0)
    assert sizes() == [50, 25, 12, 6, 3]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mode": "pover"}, "Did you mean 'power'"),
        ({"start": 0}, "start to be at least 3; got 0"),
        ({"steps_per_trial": 0}, "steps_per_trial to be at least 1"),
        ({"max_trials": 0}, "max_trials to be at least 1"),
        ({"max_val": 1}, "max_val to be at least 3"),
        ({"margin": 1.0}, "margin to be at least 0 and below 1"),
    ],
)
def test_numbers_out_of_range_are_told(
    limited: Limited, rows: Any, split: Split, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        find_batch_size(limited, rows, split.train, seed=0, **kwargs)


def test_too_few_cells_are_told(limited: Limited, rows: Any) -> None:
    with pytest.raises(InvalidDataError, match="at least 3 cells; got 2"):
        find_batch_size(limited, rows, np.arange(2), seed=0)


def test_all_of_few_real_cells_fit(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")
    adata = adata[:300, np.asarray(adata.X.sum(0)).ravel().argsort()[-200:]].copy()
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=16, n_latent=4)
    assert find_batch_size(model.module, model.rows_of_model(), np.arange(300), seed=0) == 300


@pytest.mark.gpu
def test_a_real_lack_of_memory_on_a_gpu_is_met(rows: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")

    class Greedy(SCVIModule):
        def loss(self, batch: CountBatch, kl_weight: Tensor) -> Loss:
            torch.empty(len(batch.counts), 2**31, dtype=torch.float64, device=batch.counts.device)
            return super().loss(batch, kl_weight)

    module = Greedy(SCVISizes(n_genes=12), SCVIConfig(n_hidden=8, n_latent=2))
    free, _ = torch.cuda.mem_get_info()
    cells = np.tile(np.arange(60), 10)
    found = find_batch_size(
        module, rows, cells, seed=0, start=3, mode="binsearch", margin=0.0, device="cuda"
    )
    assert found == pytest.approx(free // 2**34, abs=1)

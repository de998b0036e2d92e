"""Runs of a network of usual size, in which all kernels take part: equal weights in any way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from torch import Tensor

from cellvae.kernels import adam_step
from cellvae.kernels.layers.lazy_linear import find_stack
from cellvae.model import SCVI
from cellvae.settings import settings
from cellvae.train.loop import optimizers

pytestmark = pytest.mark.trains
KWARGS: dict[str, Any] = {"seed": 0, "train_size": 0.9, "enable_progress_bar": False}
N_CELLS, N_GENES = 500, 700


class Interrupted(Exception):
    """An error in the third epoch."""


class Interrupt(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise Interrupted


@pytest.fixture
def adata() -> AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, (N_CELLS, N_GENES)) * (rng.random((N_CELLS, N_GENES)) < 0.1)
    counts[:, 0] += 1
    adata = AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.obs["batch"] = rng.choice(["a", "b"], N_CELLS)
    SCVI.setup_anndata(adata, batch_key="batch")
    return adata


def new_model(adata: AnnData) -> SCVI:
    torch.manual_seed(0)
    return SCVI(adata)


def weights_of(model: SCVI) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    differ = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not differ


def test_blocks_single_steps_and_resumed_runs_give_the_same_bits(
    adata: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(table: Any, gradients: Any, **kwargs: Any) -> None:
        calls.append(len(gradients))
        adam_step(table, gradients, **kwargs)

    monkeypatch.setattr(optimizers, "adam_step", counted)
    whole = new_model(adata)
    whole.train(max_epochs=4, **KWARGS)
    # Four steps an epoch; the first of all makes the state of the optimizer.
    n_parameters = len(list(whole.module.parameters()))
    assert calls == 15 * [n_parameters]
    decoder: Any = whole.module.decoder
    heads = (decoder.px_scale_decoder[0].weight, decoder.px_dropout_decoder.weight)
    assert find_stack(*heads) is not None
    expected = weights_of(whole)

    single = new_model(adata)
    single.train(max_epochs=4, steps_per_block=1, **KWARGS)
    assert len(calls) == 30
    assert_equal(weights_of(single), expected)
    elbo = whole.history["elbo_train"].to_numpy()
    assert np.array_equal(single.history["elbo_train"].to_numpy(), elbo)

    kwargs = {**KWARGS, "max_epochs": 4, "resume": "auto", "run_dir": tmp_path}
    with pytest.raises(Interrupted):
        new_model(adata).train(**kwargs, callbacks=[Interrupt()])
    resumed = new_model(adata)
    resumed.train(**kwargs)
    assert resumed.training_report is not None and resumed.training_report.resumed_epoch == 2
    assert_equal(weights_of(resumed), expected)
    assert np.array_equal(resumed.history["elbo_train"].to_numpy(), elbo)
    latent = resumed.get_latent_representation()
    assert np.array_equal(latent, whole.get_latent_representation())


def test_kernels_and_torch_train_alike(adata: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for kernels in ("auto", "torch"):
        monkeypatch.setitem(settings.values, "kernels", kernels)
        torch.manual_seed(0)
        # Without dropout, whose masks come from another generator in the kernel.
        model = SCVI(adata, dropout_rate=0.0)
        model.train(max_epochs=3, **KWARGS)
        found[kernels] = model.history["elbo_train"].to_numpy()
    np.testing.assert_allclose(found["auto"], found["torch"], rtol=1e-4)

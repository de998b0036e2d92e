"""Searches of a learning rate and of a batch size leave the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from anndata import AnnData, read_h5ad

from cellvae.errors import DataMismatchError, UnknownOptionError
from cellvae.model import SCVI


def test_a_learning_rate_is_suggested_and_nothing_changes(
    shared_data: Path, tmp_path: Path
) -> None:
    adata = read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[::20].copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=32)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    state = torch.get_rng_state()
    found = model.lr_find(plot=tmp_path / "rates.png", batch_size=64, seed=0)
    assert 1e-4 < found.suggestion < 0.5
    assert (tmp_path / "rates.png").stat().st_size > 5_000
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not model.is_trained
    assert len(model.history.epochs) == 0
    assert model.lr_find(batch_size=64, seed=0).losses == found.losses


def test_a_batch_size_is_found(adata: AnnData, make: Callable[..., SCVI]) -> None:
    model = make(adata)
    assert model.find_batch_size(start=8, seed=0) == 63  # all training cells fit
    assert model.find_batch_size(start=8, max_val=32, seed=0) == 32


def test_wrong_words_are_refused(adata: AnnData, make: Callable[..., SCVI], tmp_path: Path) -> None:
    model = make(adata)
    with pytest.raises(UnknownOptionError, match="'lrr'"):
        model.lr_find(plan_kwargs={"lrr": 1})
    model.save(tmp_path)
    with pytest.raises(DataMismatchError, match="without cells"):
        SCVI.load(tmp_path).lr_find()

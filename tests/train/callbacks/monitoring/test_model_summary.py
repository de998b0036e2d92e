"""The table before training."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from anndata import read_h5ad

from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train.callbacks.monitoring.model_summary import Summary


@pytest.mark.trains
def test_the_table_says_what_is_trained_on_what(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[:300].copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=16, n_latent=7)
    model.module.z_encoder.requires_grad_(requires_grad=False)
    file = io.StringIO()
    model.train(1, callbacks=Summary(file), batch_size=64, seed=0, enable_progress_bar=False)
    text = " ".join(file.getvalue().split())
    sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in model.module.named_children()}
    whole = sum(p.numel() for p in model.module.parameters())
    assert "300 cells, 1,287 genes, 270 for training, 30 for validation" in text
    assert "batches of 64, latent of 7" in text
    assert f"│ z_encoder │ Encoder │ {sizes['z_encoder']:,} │ 0 │" in text
    assert f"│ decoder │ DecoderSCVI │ {sizes['decoder']:,} │ {sizes['decoder']:,} │" in text
    assert "│ px_r │ parameter │ 1,287 │ 1,287 │" in text
    assert f"│ all │ SCVIModule │ {whole:,} │ {whole - sizes['z_encoder']:,} │" in text


def test_a_file_that_cannot_be_written_to_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="file to be an open text file or None; got 5"):
        Summary(file=5)  # type: ignore[arg-type]

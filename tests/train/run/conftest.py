"""A small model that is trained in milliseconds."""

from __future__ import annotations

import pytest
import torch

from cellvae.data import synthetic_iid
from cellvae.model import SCVI


@pytest.fixture
def model() -> SCVI:
    adata = synthetic_iid(batch_size=40, n_genes=12, n_proteins=0, n_regions=0)
    SCVI.setup_anndata(adata)
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2)

"""LinearSCVI on real cells: genes of one kind of cell have loadings of one direction."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from cellvae.model import LinearSCVI

pytestmark = pytest.mark.trains

KINDS = {
    "antigens": ["CD74", "HLA-DRA"],
    "monocyte": ["S100A8", "S100A9", "FCN1"],
    "killer": ["GNLY", "NKG7", "GZMB"],
}


def test_genes_of_a_kind_have_loadings_of_one_direction(shared_data: Path) -> None:
    cells = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[::8].copy()
    LinearSCVI.setup_anndata(cells, batch_key="batch")
    torch.manual_seed(0)
    model = LinearSCVI(cells, n_latent=8)
    kwargs = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False, "max_epochs": 40}
    model.train(**kwargs, lr=5e-3)
    loadings = model.get_loadings()
    assert loadings.index.equals(cells.var_names) and loadings.shape[1] == 8
    unit = loadings.sub(loadings.mean()).T
    unit = (unit / np.linalg.norm(unit, axis=0)).T
    for kind, names in KINDS.items():
        within = (unit.loc[names] @ unit.loc[names].T).to_numpy()
        others = [gene for other, more in KINDS.items() if other != kind for gene in more]
        between = (unit.loc[names] @ unit.loc[others].T).to_numpy()
        assert within[np.triu_indices(len(names), 1)].min() > 0.5, kind
        assert between.mean() < 0.25, kind

"""Numbers and a model of scvi-tools' SOLO, written to `solo.npz` and `../interop/data/solo`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/parity/write_solo.py`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import scvi
import torch
from scvi.external import SOLO
from scvi.train import ClassifierTrainingPlan

HERE = Path(__file__).parent
N_CELLS, N_FEATURES, N_STEPS = 60, 4, 20
QUICK = {"accelerator": "cpu", "enable_progress_bar": False}


def features() -> anndata.AnnData:
    """Features of cells and of twice as many doublets, which are different."""
    random = np.random.default_rng(0)
    singlets = random.normal(size=(N_CELLS, N_FEATURES))
    doublets = random.normal(0.7, 0.8, size=(2 * N_CELLS, N_FEATURES))
    adata = anndata.AnnData(np.concatenate([singlets, doublets]).astype(np.float32))
    adata.obs["_solo_doub_sim"] = ["singlet"] * N_CELLS + ["doublet"] * (2 * N_CELLS)
    return adata


def main() -> None:
    warnings.simplefilter("ignore")
    scvi.settings.seed = 0
    adata = features()
    SOLO.setup_anndata(adata, labels_key="_solo_doub_sim")
    model = SOLO(adata, n_hidden=8, n_layers=2, dropout_rate=0.0)
    module = model.module
    values = {f"weight {k}": v.clone() for k, v in module.state_dict().items()}
    x = torch.from_numpy(adata.X)
    y = torch.from_numpy((adata.obs["_solo_doub_sim"] == "singlet").to_numpy().astype(np.int64))
    module.eval()
    values |= {"features": x, "labels": y, "logits": module(x)}
    plan = ClassifierTrainingPlan(module)
    optimizer = plan.configure_optimizers()
    module.train()
    batches = torch.stack([torch.randperm(len(x))[:32] for _ in range(N_STEPS)])
    losses = []
    for batch in batches:
        loss = plan.loss_fn(module(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    module.eval()
    values |= {"batches": batches, "losses": torch.stack(losses), "trained logits": module(x)}
    values |= {f"trained {k}": v for k, v in module.state_dict().items()}

    cells = scvi.data.synthetic_iid(batch_size=20, n_genes=10, n_batches=1)
    scvi.model.SCVI.setup_anndata(cells)
    manager = scvi.model.SCVI(cells).adata_manager
    values["counts"] = torch.from_numpy(np.asarray(cells.X))
    values["doublets"] = torch.from_numpy(SOLO.create_doublets(manager, 2).X)

    saved = SOLO(adata, n_hidden=8)
    saved.train(max_epochs=2, **QUICK)
    saved.save(HERE.parent / "interop" / "data" / "solo", overwrite=True)
    predicted = saved.predict(include_simulated_doublets=True)
    values["predicted"] = torch.from_numpy(predicted.to_numpy())
    arrays = {name: tensor.detach().numpy() for name, tensor in values.items()}
    np.savez_compressed(HERE / "solo.npz", **arrays)


if __name__ == "__main__":
    main()

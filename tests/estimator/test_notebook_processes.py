"""Several devices in a notebook: the run is made by new processes, its results come back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.trains, pytest.mark.slow]

CELLS = (
    """
import json, torch, cellvae
import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
from cellvae.train import SaveCheckpoint

torch.set_num_threads(1)
adata = cellvae.data.synthetic_iid(batch_size=60, n_genes=12, n_proteins=0, n_regions=0)
cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
torch.manual_seed(0)
model = cellvae.model.SCVI(adata, n_hidden=8, n_latent=3)
kwargs = {"batch_size": 32, "accelerator": "cpu", "enable_progress_bar": False, "lr": 0.01}
saver = SaveCheckpoint("best", monitor="elbo_validation")
# One device first: its threads must not disturb what follows.
model.train(1, **kwargs)
model.train(2, devices=2, callbacks=[saver], check_val_every_n_epoch=1, **kwargs)
report = model.training_report
""",
    """
class Mine(pl.Callback):
    pass

errors = []
for more in ({"callbacks": [Mine()]}, {"batch_size": 1}):
    try:
        model.train(1, devices=2, **{**kwargs, **more})
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
""",
    """
model.train(1, devices=2, strategy="ddp_notebook", **kwargs)
found = {
    "epochs": model.history.epochs,
    "elbo": model.history.table["elbo_train"].tolist(),
    "again": -float(model.get_elbo(indices=model.train_indices)),
    "status": [report.status, report.epochs, model.training_report.first_epoch],
    "training": model.module.training,
    "path": str(saver.best_model_path),
    "errors": errors,
    "n_steps": model.carryover.n_steps,
}
with open("found.json", "w") as file:
    json.dump(found, file)
""",
)


def test_training_on_two_devices_in_a_notebook(tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")})
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["epochs"] == [0, 1, 2, 3]
    assert found["status"] == ["completed", 2, 3]
    assert not found["training"]
    # The weights are those of the run: their ELBO is that of its last epoch.
    assert found["elbo"][-1] < found["elbo"][0]
    assert found["again"] == pytest.approx(found["elbo"][-1], rel=0.05)
    assert Path(tmp_path / found["path"]).exists() and found["path"]
    first, second = found["errors"]
    assert first.startswith("InvalidOptionError") and "Mine, which is defined here" in first
    assert second.startswith("InvalidOptionError: Expected batch_size to be at least 2")
    # 108 training cells in four steps, in four epochs.
    assert found["n_steps"] == 16

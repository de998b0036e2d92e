"""Two processes train as one does: without noise, losses and weights are equal in every epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.trains, pytest.mark.slow]

SCRIPT = textwrap.dedent("""
    import json, os, sys
    import anndata, numpy as np, torch, cellvae
    from torch.distributions import Normal
    from cellvae.train.loop.steps import adversarial_step

    devices, out = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    # The noise of a process is its own: here there is none.
    Normal.rsample = lambda self, shape=torch.Size(): self.loc.expand(self._extended_shape(shape))
    adversarial_step.DROPOUT_RATE = 0.0
    adata = cellvae.data.synthetic_iid(batch_size=101, n_genes=30, n_proteins=0, n_regions=20)
    kwargs = {"n_hidden": 16, "n_latent": 4, "dropout_rate": 0.0}


    def scvi():
        cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
        # Two layers, and an encoder of the library size.
        return cellvae.model.SCVI(adata, **kwargs, n_layers=2, use_observed_lib_size=False)


    def scanvi():
        cellvae.model.SCANVI.setup_anndata(
            adata, labels_key="labels", unlabeled_category="label_0", batch_key="batch"
        )
        return cellvae.model.SCANVI(adata, **kwargs)


    def multivi():
        # Regions are measured in few cells, so that some steps of a process have none.
        regions = np.asarray(adata.obsm["accessibility"], dtype=np.float32)
        regions[12:] = 0
        values = np.hstack([np.asarray(adata.X, dtype=np.float32), regions]).copy(order="C")
        both = anndata.AnnData(values, obs=adata.obs.copy())
        both.var["feature_types"] = 30 * ["Gene Expression"] + regions.shape[1] * ["Peaks"]
        cellvae.model.MULTIVI.setup_anndata(both, batch_key="batch")
        return cellvae.model.MULTIVI(
            both, n_genes=30, n_regions=regions.shape[1], **kwargs, use_batch_norm="both"
        )


    def train(make, **more):
        torch.manual_seed(0)
        model = make()
        # 163 cells: the last step has three, two and one of them in the two processes.
        model.train(
            3, batch_size=32, accelerator="cpu", devices=devices, enable_progress_bar=False, seed=0,
            check_val_every_n_epoch=1, train_size=0.81, **more,
        )
        losses = model.history.table.filter(regex="elbo|loss")
        return {
            "losses": {name: column.tolist() for name, column in losses.items()},
            "parameters": torch.cat([p.flatten() for p in model.module.parameters()]).tolist(),
            "buffers": torch.cat([b.flatten() for b in model.module.buffers()]).tolist(),
        }


    lr = {"plan_kwargs": {"lr": 0.01}}
    found = {
        "SCVI": train(scvi, **lr),
        "adversary": train(
            scvi, adversarial_classifier=True, plan_kwargs={"lr": 0.01, "kl_weight": 0.5}
        ),
        "SCANVI": train(scanvi, **lr),
        "MULTIVI": train(multivi, adversarial_classifier=False, **lr),
        "each its own": train(scvi, sync_batchnorm=False, **lr),
    }
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with open(out, "w") as file:
            json.dump(found, file)
""")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one process and two have seen, by model."""
    folder = tmp_path_factory.mktemp("runs")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), devices, str(folder / f"{devices}.json")],
            capture_output=True, text=True, check=False, timeout=400, env=environment, cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((folder / f"{devices}.json").read_text()) for devices in "12")
    return one, two


@pytest.mark.parametrize("model", ["SCVI", "adversary", "SCANVI", "MULTIVI"])
def test_losses_and_weights_are_those_of_one_process(model: str, runs: Any) -> None:
    one, two = (each[model] for each in runs)
    assert list(one["losses"]) == list(two["losses"])
    for name, losses in one["losses"].items():
        assert len(losses) == 3
        if name.endswith("_train") or name == "train_loss":
            np.testing.assert_allclose(two["losses"][name], losses, rtol=1e-5, err_msg=name)
    if model == "MULTIVI":
        # The gradient of a bias before batch normalisation is rounding, of which its Adam, with an
        # epsilon of 1e-8, makes whole steps; training does not see them.
        return
    for name in ("elbo_validation", "reconstruction_loss_validation"):
        found, losses = two["losses"][name], one["losses"][name]
        np.testing.assert_allclose(found, losses, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(two["parameters"], one["parameters"], rtol=0, atol=3e-4)
    np.testing.assert_allclose(two["buffers"], one["buffers"], rtol=0, atol=3e-5)


def test_statistics_of_each_process_give_another_model(runs: Any) -> None:
    one, two = (each["each its own"] for each in runs)
    assert one["losses"] == runs[0]["SCVI"]["losses"]
    assert abs(one["losses"]["elbo_train"][-1] - two["losses"]["elbo_train"][-1]) > 1.0

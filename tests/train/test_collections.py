"""Models train on collections of annbatch as on the same cells in memory."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from scipy import sparse

import cellvae
from cellvae.data import synthetic_iid
from cellvae.data.batches import blocks as blocks_module
from cellvae.data.batches.run_order import RunOrder, run_epoch_order
from cellvae.data.files.cell_files import CellFiles
from cellvae.data.files.open_cells import open_cells
from cellvae.model import SCVI
from cellvae.train.run import split_blocks

pytestmark = pytest.mark.trains
ORDER = RunOrder(run_length=5, buffer_size=96)
TRAINING = {"max_epochs": 3, "seed": 0, "batch_size": 32, "steps_per_block": 2}


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    made = synthetic_iid(batch_size=120, n_genes=40, n_proteins=0, n_regions=0, dropout_ratio=0.1)
    made.X[:, 0] = 1
    made.X = sparse.csr_matrix(made.X)
    return made


@pytest.fixture(scope="module")
def collection(adata: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports, and of metadata of zarr
        annbatch: Any = pytest.importorskip(
            "annbatch", reason="annbatch (Python >= 3.12) is not installed"
        )
        for number in range(2):
            part = adata[number * 120 : number * 120 + 120].copy()
            part.write_h5ad(folder / f"{number}.h5ad")
        annbatch.DatasetCollection(folder / "c.zarr").add_adatas(
            sorted(folder.glob("*.h5ad")),
            dataset_size=90,
            shuffle_chunk_size=10,
            n_obs_per_chunk=16,
            shard_size=64,
            rng=np.random.default_rng(0),
        )
    return folder / "c.zarr"


@pytest.fixture
def cells(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CellFiles:
    """Cells in files, in runs of 5 and buffers of 96, so that an epoch has several."""
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    monkeypatch.setattr(split_blocks, "plan_order", plan_small)
    opened = open_cells(collection)
    SCVI.setup_anndata(opened, batch_key="batch")
    return opened


def plan_small(rows: object, cells: object, batch_size: int, **kwargs: object) -> RunOrder:
    return ORDER


def in_order_of_runs(
    cells: torch.Tensor, seed: int, epoch: int, shuffle: bool = True
) -> torch.Tensor:
    ordered = cells.sort().values
    return run_epoch_order(ordered, ORDER, seed, epoch) if shuffle else ordered


def trained(data: Any, **kwargs: Any) -> SCVI:
    cellvae.settings.seed = 0
    model = SCVI(data, n_hidden=16)
    model.train(**(TRAINING | kwargs))
    return model


def assert_same_weights(first: SCVI, second: SCVI) -> None:
    others = second.module.state_dict()
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, others[name]), name


def test_weights_and_latent_are_those_of_memory(
    cells: CellFiles, adata: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_files = trained(cells)
    monkeypatch.setattr(blocks_module, "epoch_order", in_order_of_runs)
    monkeypatch.setattr(split_blocks, "plan_order", lambda *_, **__: None)
    same_cells = adata[cells.obs_names].copy()
    SCVI.setup_anndata(same_cells, batch_key="batch")
    in_memory = trained(same_cells)
    assert_same_weights(from_files, in_memory)
    np.testing.assert_allclose(
        from_files.get_latent_representation(),
        in_memory.get_latent_representation(),
        rtol=1e-5,
        atol=1e-6,
    )
    by_name = from_files.get_latent_representation(adata[cells.obs_names])
    np.testing.assert_allclose(by_name, from_files.get_latent_representation(), atol=1e-6)


def test_a_resumed_run_ends_with_the_same_weights(cells: CellFiles, tmp_path: Path) -> None:
    class StopAfterOne(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            raise KeyboardInterrupt

    whole = trained(cells)
    with contextlib.suppress(KeyboardInterrupt):
        trained(cells, run_dir=tmp_path / "run", resume="auto", callbacks=[StopAfterOne()])
    resumed = trained(cells, run_dir=tmp_path / "run", resume="auto")
    assert len(resumed.history["elbo_train"]) == 3
    assert_same_weights(whole, resumed)

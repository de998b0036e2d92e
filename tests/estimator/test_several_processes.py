"""Two processes train one model: the same decisions, files written once, history complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.labelled_cells import LabelledSampler
from cellvae.data.batches.run_order import RunOrder
from cellvae.errors import InvalidDataError, InvalidOptionError
from cellvae.train.options.train_kwargs import total_batch_size
from cellvae.train.options.train_options import LoaderOptions

pytestmark = pytest.mark.trains

SCRIPT = textwrap.dedent("""
    import json, os, sys
    import anndata, torch, cellvae
    from cellvae.train import SaveCheckpoint
    torch.set_num_threads(1)
    data, out, resume = sys.argv[1:4]
    rank = os.environ.get("LOCAL_RANK", "0")
    adata = anndata.read_h5ad(data)
    cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = cellvae.model.SCVI(adata, n_hidden=16, n_latent=4)
    saver = SaveCheckpoint(out + "/best", monitor="elbo_validation", save_top_k=2)
    model.train(
        30, batch_size=64, accelerator="cpu", devices=2, enable_progress_bar=False,
        early_stopping=True, early_stopping_patience=1, early_stopping_min_delta=4.0,
        callbacks=[saver], run_dir=out, plan_kwargs={"lr": 0.01},
    )
    torch.manual_seed(1)
    flat = torch.cat([p.detach().flatten() for p in model.module.parameters()])
    report = model.training_report
    seen = {
        "epochs": model.history.epochs,
        "elbo": model.history["elbo_validation"]["elbo_validation"].tolist(),
        "train": model.history["elbo_train"]["elbo_train"].tolist(),
        "status": report.status, "best": report.best_epoch, "restored": report.restored_epoch,
        "weights": flat.double().sum().item(),
        "buffers": sum(b.double().sum().item() for b in model.module.buffers()),
        "path": saver.best_model_path,
        "seed": report.seed, "split": model.train_indices[:20].tolist(),
        "elbo_of_best": -float(model.get_elbo(indices=model.validation_indices)),
    }
    with open(f"{out}/rank{rank}.json", "w") as file:
        json.dump(seen, file)
""")

ADVERSARIAL = textwrap.dedent("""
    import json, os, sys
    import torch, cellvae
    torch.set_num_threads(1)
    out = sys.argv[1]
    adata = cellvae.data.synthetic_iid(batch_size=100, n_genes=12, n_proteins=0, n_regions=0)
    cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = cellvae.model.SCVI(adata, n_hidden=8, n_latent=3)
    model.train(
        3, batch_size=16, accelerator="cpu", devices=2, enable_progress_bar=False,
        adversarial_classifier=True, plan_kwargs={"kl_weight": 0.5},
    )
    step = model.carryover.step
    seen = {
        "weights": [p.tolist() for p in model.module.parameters()],
        "classifier": [
            v.tolist() for k, v in step["classifier"].items()
            if "running" not in k and "num_batches" not in k
        ],
        "n_steps": [int(state["step"]) for state in step["optimizer"]["state"].values()],
        "losses": model.history.table.filter(like="adversarial").to_numpy().tolist(),
    }
    with open(f"{out}/rank{os.environ.get('LOCAL_RANK', '0')}.json", "w") as file:
        json.dump(seen, file)
""")


CELLS_IN_FILES = textwrap.dedent("""
    import json, os, sys
    import lightning.pytorch as pl
    import torch, cellvae
    torch.set_num_threads(1)
    out = sys.argv[1]
    cells = cellvae.data.open_cells(out + "/*.h5ad")
    cellvae.model.SCVI.setup_anndata(cells, batch_key="batch")
    torch.manual_seed(0)
    model = cellvae.model.SCVI(cells, n_hidden=8, n_latent=3)
    read = []

    class Note(pl.Callback):
        supports_blocks = True

        def on_train_epoch_end(self, trainer, plan):
            steps = plan.blocks[0].steps_of_epoch()
            read.append([cell for block in steps for cell in block.view(-1).tolist()])

    model.train(
        2, batch_size=16, accelerator="cpu", devices=2, enable_progress_bar=False,
        callbacks=[Note()], train_size=0.8,
    )
    seen = {
        "weights": [p.tolist() for p in model.module.parameters()],
        "elbo": model.history["elbo_train"].to_numpy().tolist(),
        "train": model.train_indices.tolist(), "read": read,
    }
    with open(f"{out}/rank{os.environ.get('LOCAL_RANK', '0')}.json", "w") as file:
        json.dump(seen, file)
""")


@pytest.mark.slow
def test_two_processes_read_different_cells_of_files(tmp_path: Path) -> None:
    from scipy import sparse

    from cellvae.data import synthetic_iid

    adata = synthetic_iid(batch_size=100, n_genes=12, n_proteins=0, n_regions=0)
    adata.X = sparse.csr_matrix(adata.X)
    for number in range(2):
        part = adata[number * 100 : number * 100 + 100].copy()
        part.write_h5ad(tmp_path / f"part{number}.h5ad")
    script = tmp_path / "script.py"
    script.write_text(CELLS_IN_FILES)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment["CELLVAE_DATA_DIR"] = str(tmp_path / "checked")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=240, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["elbo"] == second["elbo"]
    for own, other in zip(first["read"], second["read"], strict=True):
        assert len(own) == len(other) == 80
        assert sorted(own + other) == sorted(first["train"])
    assert first["read"][0] != first["read"][1]


@pytest.mark.slow
def test_two_processes_have_one_adversarial_classifier(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ADVERSARIAL)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=240, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert first == second
    # 180 training cells in twelve steps, as in one process: the last has four. Three times.
    assert set(first["n_steps"]) == {36}
    assert np.isfinite(first["losses"]).all() and len(first["losses"]) == 3


@pytest.mark.slow
def test_early_stopping_checkpoints_and_history_of_two_processes(
    shared_data: Path, tmp_path: Path
) -> None:
    import anndata

    cells = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")
    cells[:: len(cells) // 400].copy().write_h5ad(tmp_path / "cells.h5ad")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "cells.h5ad"), str(tmp_path), "no"],
        capture_output=True, text=True, check=False, timeout=240, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert first == second
    assert first["status"] == "stopped_early"
    assert first["epochs"] == [*range(len(first["elbo"]))]
    assert len(first["train"]) == len(first["epochs"]) < 30
    # The rule of early stopping, by hand.
    reference, waited = first["elbo"][0], []
    for value in first["elbo"][1:]:
        waited.append(reference - value <= 4.0)
        reference = value if not waited[-1] else reference
    assert waited.index(True) == len(waited) - 1
    assert first["best"] == int(np.argmin(first["elbo"])) == first["restored"]
    kept = [p for p in (tmp_path / "best").iterdir() if p.is_dir()]
    assert len(kept) == 2
    assert Path(first["path"]) in kept
    # Validation over two shares is validation of all cells, up to the noise of one draw.
    assert first["elbo_of_best"] == pytest.approx(min(first["elbo"]), rel=0.01)


@pytest.mark.parametrize("n_cells", [7, 64, 65, 129, 130])
@pytest.mark.parametrize("shuffle", [True, False])
def test_shares_are_equal_in_blocks_and_cover_the_cells(n_cells: int, shuffle: bool) -> None:
    shares = []
    for rank in range(2):
        blocks: Any = EpochBlocks(
            range(n_cells), np.arange(n_cells), 32, seed=1, shuffle=shuffle, min_batch_size=1
        )  # type: ignore[arg-type]
        blocks.shard(rank, 2)
        assert len(blocks) == len([*blocks])
        shares.append([block.steps for block in blocks])
    assert len(shares[0]) == len(shares[1])
    cells = torch.cat([steps.flatten() for share in shares for steps in share])
    assert torch.equal(cells.sort().values, torch.arange(n_cells))
    assert max(steps.shape[1] for share in shares for steps in share) <= 17
    if shuffle:
        alone: Any = EpochBlocks(range(n_cells), np.arange(n_cells), 32, seed=1, min_batch_size=2)  # type: ignore[arg-type]
        for block, *parts in zip(alone, *shares, strict=True):
            assert torch.equal(torch.cat(parts, dim=1), block.steps)


@pytest.mark.parametrize(("n_cells", "world_size"), [(100, 3), (129, 2), (130, 4), (64, 2)])
@pytest.mark.parametrize("run_order", [None, RunOrder(run_length=8, buffer_size=16)])
def test_shares_weigh_the_cells_of_a_step_equally(
    n_cells: int, world_size: int, run_order: RunOrder | None
) -> None:
    every = []
    for rank in range(world_size):
        blocks: Any = EpochBlocks(
            range(n_cells), np.arange(n_cells), 32, seed=1, run_order=run_order
        )  # type: ignore[arg-type]
        blocks.shard(rank, world_size)
        steps = blocks.steps_of_epoch()
        every.append((steps, blocks.shares or [1.0] * len(steps)))
    cells = torch.cat([step.flatten() for steps, _ in every for step in steps])
    assert torch.equal(cells.sort().values, torch.arange(n_cells))
    for number in range(len(every[0][0])):
        # Mean over processes of the weighted means of their cells is the mean over all cells.
        parts = [(steps[number].double(), shares[number]) for steps, shares in every]
        mean = sum(share * cells.mean() for cells, share in parts) / world_size
        assert mean == pytest.approx(float(torch.cat([c for c, _ in parts], dim=1).mean()))


def test_labelled_cells_of_a_step_are_distributed_as_the_others_are() -> None:
    def make_parts(world_size: int, n_labelled: int) -> list[list[torch.Tensor]]:
        labelled = np.arange(n_labelled)
        shares = []
        for rank in range(world_size):
            sampler = LabelledSampler(labelled, labelled % 2, 32, seed=1)
            blocks: Any = EpochBlocks(range(96), np.arange(96), 32, seed=1, labelled_cells=sampler)  # type: ignore[arg-type]
            blocks.shard(rank, world_size)
            shares.append([block.steps for block in blocks])
        return shares

    (alone,), shares = make_parts(1, 20), make_parts(2, 20)
    for whole, *parts in zip(alone, *shares, strict=True):
        assert whole.shape == (1, 52) and parts[0].shape == (1, 26)
        own = torch.cat([part[:, :16] for part in parts] + [part[:, 16:] for part in parts], dim=1)
        assert torch.equal(own, whole)
    assert all(steps.shape == (1, 17) for (*_, steps) in make_parts(2, 1))


def test_a_batch_has_cells_for_every_process() -> None:
    blocks: Any = EpochBlocks(range(50), np.arange(50), 6, seed=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="batch_size to be at least 8.*batch_size_per"):
        blocks.shard(0, 4)


@pytest.mark.parametrize(
    ("devices", "num_nodes", "total"),
    [
        (2, 1, 128),
        ("2", 1, 128),
        ([0, 1, 2], 1, 192),
        ("0,1", 2, 256),
        ("auto", 1, 64),
        (-1, 1, 64),
    ],
)
def test_the_batch_size_of_a_device_gives_that_of_all(
    devices: Any, num_nodes: int, total: int
) -> None:
    given = {"devices": devices, "num_nodes": num_nodes}
    assert total_batch_size(LoaderOptions(batch_size_per_device=64), given).batch_size == total


def test_more_processes_than_cells_are_refused() -> None:
    blocks: Any = EpochBlocks(range(3), np.arange(3), 2, seed=1, min_batch_size=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidDataError, match="one cell for each of 4"):
        blocks.shard(0, 4)

"""MultiVI's network in a run: metrics of its parts, the classifier of batches, imputation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from cellvae import settings
from cellvae.data import Split
from cellvae.data.storage.memory import (
    CategoricalColumn,
    ColumnRows,
    DenseColumn,
    SparseColumn,
)
from cellvae.model.networks.multivi_module import MULTIVIBatch, MULTIVIModule
from cellvae.model.networks.multivi_network import MULTIVIConfig, MULTIVISizes
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains

N_CELLS, N_GENES, N_REGIONS, N_PROTEINS, N_KINDS = 240, 40, 60, 6, 3


def make_cells(seed: int = 0) -> dict[str, np.ndarray]:
    """Counts of cells of three kinds, all modalities measured, and the kind of each cell."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(N_CELLS) % N_KINDS
    genes = rng.gamma(1.0, 3.0, (N_KINDS, N_GENES))[kinds]
    regions = rng.beta(0.4, 0.6, (N_KINDS, N_REGIONS))[kinds]
    proteins = rng.choice([2.0, 40.0], (N_KINDS, N_PROTEINS))[kinds]
    return {
        "kinds": kinds,
        "counts": rng.poisson(genes).astype(np.float32),
        "regions": (rng.random(regions.shape) < regions).astype(np.float32),
        "proteins": rng.poisson(proteins).astype(np.float32),
    }


def make_rows(cells: dict[str, np.ndarray], batch: np.ndarray) -> ColumnRows[MULTIVIBatch]:
    """Rows of the cells, genes and regions sparse."""
    codes = batch.astype(np.int64)[:, None]
    columns: dict[str, Any] = {
        "batch": CategoricalColumn(codes),
        "labels": CategoricalColumn(np.zeros_like(codes)),
        "counts": SparseColumn(csr_matrix(cells["counts"])),
        "regions": SparseColumn(csr_matrix(cells["regions"])),
        "proteins": DenseColumn(cells["proteins"]),
        "cell_index": CategoricalColumn(np.arange(N_CELLS)[:, None]),
    }
    return ColumnRows(columns, MULTIVIBatch)


def train(module: MULTIVIModule, rows: ColumnRows[MULTIVIBatch], **kwargs: Any) -> Any:
    """Result of a run on nine tenths of the cells."""
    cells = np.arange(N_CELLS)
    n_train = N_CELLS * 9 // 10
    split = Split(train=cells[:n_train], validation=cells[n_train:], test=cells[:0])
    given = {"enable_progress_bar": False, "batch_size": 32, "accelerator": "cpu", **kwargs}
    parsed = parse_train_kwargs({"check_val_every_n_epoch": 1, **given})
    return fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)


def make_module(n_batch: int, **config: Any) -> MULTIVIModule:
    """Network for these cells."""
    torch.manual_seed(0)
    sizes = MULTIVISizes(
        n_genes=N_GENES,
        n_regions=N_REGIONS,
        n_proteins=N_PROTEINS,
        n_cells=N_CELLS,
        n_batch=n_batch,
    )
    return MULTIVIModule(sizes, MULTIVIConfig(**{"n_hidden": 32, "n_latent": 5, **config}))


@pytest.mark.parametrize("n_batch", [1, 2])
@pytest.mark.parametrize("weights", ["universal", "cell"])
def test_a_run_logs_all_parts_and_has_a_classifier_for_several_batches(
    n_batch: int, weights: str
) -> None:
    rows = make_rows(make_cells(), np.arange(N_CELLS) % n_batch)
    result = train(make_module(n_batch, modality_weights=weights), rows, max_epochs=2)
    history = result.history
    for part in ("expression", "accessibility", "protein"):
        for split in ("train", "validation"):
            assert np.isfinite(history[f"reconstruction_loss_{part}_{split}"]).all(axis=None)
    assert np.isfinite(history["kl_divergence_paired_train"]).all(axis=None)
    assert ("adversarial_loss_train" in history) == (n_batch > 1)


@pytest.mark.parametrize("hidden", ["counts", "regions"])
def test_a_modality_that_is_hidden_in_some_cells_is_imputed_from_the_other(
    hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "kernels", "compiled")
    cells = make_cells()
    truth, absent = cells[hidden].copy(), np.arange(N_CELLS) % 4 == 0
    cells[hidden][absent] = 0
    module = make_module(1)
    rows = make_rows(cells, np.zeros(N_CELLS))
    train(module, rows, max_epochs=60, plan_kwargs={"lr": 5e-3})
    with torch.no_grad():
        batch = rows.take(torch.arange(N_CELLS))
        latent = module.encode(batch)
        output = {"counts": "rna", "regions": "accessibility"}[hidden]
        decoded = module.decode(latent._replace(sample=latent.posterior.loc), batch)[output]
        values = decoded.get_normalized("scale").numpy()
    kinds, means = cells["kinds"][absent], []
    for kind in range(N_KINDS):
        means.append(truth[~absent & (cells["kinds"] == kind)].mean(axis=0))
    close = np.array([[np.corrcoef(v, mean)[0, 1] for mean in means] for v in values[absent]])
    assert (close.argmax(axis=1) == kinds).mean() > 0.95
    assert np.take_along_axis(close, kinds[:, None], axis=1).mean() > 0.8

"""Models train on cells in files as on the same cells in memory."""

import contextlib
import threading
from pathlib import Path

import anndata
import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import cellvae
from cellvae.data import synthetic_iid
from cellvae.data.batches import blocks as blocks_module
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.run_order import RunOrder, run_epoch_order
from cellvae.data.files.cell_files import CellFiles
from cellvae.data.files.open_cells import open_cells
from cellvae.data.setup import checks
from cellvae.data.storage.sparse import with_csr_columns
from cellvae.errors import InvalidDataError, InvalidOptionError
from cellvae.model import PEAKVI, SCANVI, SCVI, TOTALVI
from cellvae.train.run import split_blocks

ORDER = RunOrder(run_length=5, buffer_size=96)


@pytest.fixture
def cells(files: Path) -> CellFiles:
    return open_cells(files / "*.h5ad")


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 5 cells in buffers of 96, so that an epoch has several."""

    def plan_small(rows: object, cells: object, batch_size: int, **kwargs: object) -> RunOrder:
        return ORDER

    monkeypatch.setattr(split_blocks, "plan_order", plan_small)


def in_memory_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give cells in memory the order of cells in files."""

    def order(cells: torch.Tensor, seed: int, epoch: int, shuffle: bool = True) -> torch.Tensor:
        ordered = cells.sort().values
        return run_epoch_order(ordered, ORDER, seed, epoch) if shuffle else ordered

    monkeypatch.setattr(blocks_module, "epoch_order", order)


def weights_of(model: SCVI) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("steps_per_block", [1, 3, 50])
def test_blocks_have_every_training_cell_once(
    adata: anndata.AnnData, cells: CellFiles, steps_per_block: int
) -> None:
    SCVI.setup_anndata(cells, batch_key="batch")
    rows = SCVI(cells).rows
    chosen = np.random.default_rng(0).permutation(300)[:250]
    blocks: EpochBlocks = EpochBlocks(
        rows, chosen, 32, seed=3, run_order=ORDER, steps_per_block=steps_per_block
    )
    blocks.place = with_csr_columns
    dense = adata.X.toarray()
    for epoch in range(2):
        blocks.set_epoch(epoch)
        expected = [cells for block in blocks.steps_of_epoch() for cells in block]
        read = [
            (block.rows.take(step), cells)
            for block, indices in zip(blocks, blocks.steps_of_epoch(), strict=True)
            for step, cells in zip(block.steps, indices, strict=True)
        ]
        assert torch.equal(torch.cat(expected).sort().values, torch.from_numpy(chosen).sort()[0])
        for batch, indices in read:
            np.testing.assert_array_equal(batch.counts.to_dense().numpy(), dense[indices])
            codes = adata.obs["batch"].cat.codes.to_numpy()[indices]
            np.testing.assert_array_equal(batch.batch[:, 0].numpy(), codes)


@pytest.mark.trains
def test_weights_are_those_of_memory_for_the_same_order(
    adata: anndata.AnnData,
    cells: CellFiles,
    small_buffers: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = []
    in_memory_order(monkeypatch)
    for data in (cells, adata):
        cellvae.settings.seed = 0
        SCVI.setup_anndata(data, batch_key="batch")
        model = SCVI(data, n_hidden=16)
        # Runs of cells in memory are those of the patched order.
        if data is adata:
            monkeypatch.setattr(split_blocks, "plan_order", lambda *_, **__: None)
        model.train(max_epochs=3, seed=0, batch_size=32, check_val_every_n_epoch=1)
        trained.append(model)
    assert_same_weights(weights_of(trained[0]), weights_of(trained[1]))
    for name in ("elbo_train", "elbo_validation"):
        first, second = (model.history[name].to_numpy() for model in trained)
        np.testing.assert_allclose(first, second, rtol=1e-6)
    assert trained[0].training_report.placement == "memory"


@pytest.mark.trains
def test_steps_per_block_do_not_change_the_weights(cells: CellFiles, small_buffers: None) -> None:
    found = []
    for steps in (1, 2, 50):
        cellvae.settings.seed = 0
        SCVI.setup_anndata(cells, batch_key="batch")
        model = SCVI(cells, n_hidden=16)
        model.train(max_epochs=2, seed=0, batch_size=32, steps_per_block=steps)
        found.append(weights_of(model))
    assert_same_weights(found[0], found[1])
    assert_same_weights(found[0], found[2])


class StopAfter(pl.Callback):
    """Interrupts a run at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.trains
def test_a_resumed_run_ends_with_the_same_weights(
    cells: CellFiles, small_buffers: None, tmp_path: Path
) -> None:
    kwargs = {"max_epochs": 4, "seed": 0, "batch_size": 32, "steps_per_block": 2}
    SCVI.setup_anndata(cells, batch_key="batch")
    cellvae.settings.seed = 0
    whole = SCVI(cells, n_hidden=16)
    whole.train(**kwargs)
    cellvae.settings.seed = 0
    interrupted = SCVI(cells, n_hidden=16)
    folder = tmp_path / "run"
    with contextlib.suppress(KeyboardInterrupt):
        interrupted.train(**kwargs, run_dir=folder, resume="auto", callbacks=[StopAfter(1)])
    cellvae.settings.seed = 0
    resumed = SCVI(cells, n_hidden=16)
    resumed.train(**kwargs, run_dir=folder, resume="auto")
    assert len(resumed.history["elbo_train"]) == 4
    assert_same_weights(weights_of(whole), weights_of(resumed))


@pytest.mark.trains
def test_a_file_that_changes_under_way_ends_the_run_with_its_name(
    cells: CellFiles, files: Path, small_buffers: None
) -> None:
    class Replace(pl.Callback):
        supports_blocks = True

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            (files / "part0.h5ad").replace(files / "part1.h5ad")

    SCVI.setup_anndata(cells)
    model = SCVI(cells, n_hidden=16)
    with pytest.raises(InvalidDataError, match="part1.h5ad.*as it was when it was opened|part0"):
        model.train(max_epochs=3, batch_size=32, callbacks=[Replace()])
    assert len(model.history["elbo_train"]) == 1


def test_the_reader_ends_when_the_caller_stops_early(cells: CellFiles) -> None:
    SCVI.setup_anndata(cells)
    rows = SCVI(cells).rows
    blocks: EpochBlocks = EpochBlocks(rows, np.arange(300), 32, seed=3, run_order=ORDER)
    iterator = iter(blocks)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name.startswith("cellvae-reader"):
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.mark.trains
def test_labelled_cells_of_a_step_are_read_too(
    adata: anndata.AnnData, cells: CellFiles, small_buffers: None
) -> None:
    values = adata.obs["labels"].astype(str).to_numpy()
    cells.obs["labels"] = np.where(np.arange(300) % 3 == 0, values, "unknown")
    SCANVI.setup_anndata(cells, "labels", "unknown", batch_key="batch")
    model = SCANVI(cells, n_hidden=16)
    model.train(max_epochs=2, batch_size=32, seed=0)
    assert np.isfinite(model.history["elbo_train"].to_numpy()).all()
    predicted = model.predict()
    assert set(np.asarray(predicted)) <= {"label_0", "label_1", "label_2"}


@pytest.mark.trains
def test_answers_are_those_of_memory(
    adata: anndata.AnnData, cells: CellFiles, tmp_path: Path
) -> None:
    SCVI.setup_anndata(cells, batch_key="batch")
    model = SCVI(cells, n_hidden=16)
    model.train(max_epochs=1, seed=0)
    latent = model.get_latent_representation()
    np.testing.assert_allclose(latent, model.get_latent_representation(adata), rtol=1e-5)
    subset = cells[[5, 250, 3]]
    np.testing.assert_allclose(
        model.get_latent_representation(subset), latent[[5, 250, 3]], rtol=1e-4, atol=1e-6
    )
    expressions = []
    for data in (cells, adata):
        torch.manual_seed(0)
        expressions.append(model.get_normalized_expression(data, gene_list=["gene_3"]))
    np.testing.assert_allclose(*expressions, rtol=1e-4)
    assert [*expressions[0].index] == [*cells.obs_names]
    table = model.differential_expression(groupby="labels", group1="label_0")
    assert len(table) == 40
    model.save(tmp_path / "model")
    loaded = SCVI.load(tmp_path / "model", adata=cells)
    np.testing.assert_array_equal(loaded.get_latent_representation(), latent)
    np.testing.assert_allclose(
        SCVI.load(tmp_path / "model", adata=adata).get_latent_representation(), latent, rtol=1e-5
    )


@pytest.mark.trains
def test_a_model_without_sparse_input_gets_dense_batches(cells: CellFiles) -> None:
    PEAKVI.setup_anndata(cells)
    model = PEAKVI(cells, n_hidden=8, n_latent=4)
    model.train(max_epochs=1, batch_size=32)
    assert np.isfinite(model.history["elbo_train"].to_numpy()).all()


@pytest.mark.trains
def test_proteins_of_files_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    adata = synthetic_iid(batch_size=60, n_genes=20, n_proteins=5, n_regions=0)
    for number in range(2):
        adata[number * 60 : number * 60 + 60].copy().write_h5ad(tmp_path / f"part{number}.h5ad")
    cells = open_cells(tmp_path / "*.h5ad")
    TOTALVI.setup_anndata(
        cells, protein_expression_obsm_key="protein_expression", batch_key="batch"
    )
    model = TOTALVI(cells, n_latent=4)
    model.train(max_epochs=1, batch_size=32)
    assert model.get_latent_representation().shape == (120, 4)


@pytest.mark.trains
def test_minified_cells_of_files_are_small_and_in_memory(cells: CellFiles) -> None:
    SCVI.setup_anndata(cells, batch_key="batch")
    model = SCVI(cells, n_hidden=16)
    model.train(max_epochs=1, seed=0)
    latent = model.get_latent_representation()
    model.minify_adata()
    assert isinstance(model.adata, anndata.AnnData)
    assert model.adata.X.nnz == 0
    assert [*model.adata.obs_names] == [*cells.obs_names]
    np.testing.assert_allclose(model.get_latent_representation(), latent, rtol=1e-4, atol=1e-6)


@pytest.mark.trains
def test_cells_of_files_are_not_saved_with_the_model(cells: CellFiles, tmp_path: Path) -> None:
    SCVI.setup_anndata(cells)
    model = SCVI(cells, n_hidden=16)
    model.train(max_epochs=1)
    with pytest.raises(InvalidOptionError, match="these are in files already"):
        model.save(tmp_path / "model", save_anndata=True)


@pytest.mark.trains
def test_a_query_is_mapped_from_files(cells: CellFiles, adata: anndata.AnnData) -> None:
    SCVI.setup_anndata(adata, batch_key="batch")
    reference = SCVI(adata, n_hidden=16)
    reference.train(max_epochs=1)
    query = cells[:100]
    query.obs["batch"] = "new"
    model = SCVI.load_query_data(query, reference)
    model.train(max_epochs=1)
    assert model.get_latent_representation(query).shape == (100, 10)


def test_a_second_start_reads_no_counts(cells: CellFiles, files: Path, n_read: list[int]) -> None:
    SCVI.setup_anndata(cells, batch_key="batch")
    first = SCVI(cells)
    assert sum(n_read) == 300
    n_read.clear()
    again = open_cells(files / "*.h5ad")
    SCVI.setup_anndata(again, batch_key="batch")
    second = SCVI(again)
    assert n_read == []
    assert first.registration == second.registration


def test_library_sizes_are_read_once(
    cells: CellFiles, files: Path, adata: anndata.AnnData, n_read: list[int]
) -> None:
    def priors(data: object) -> torch.Tensor:
        SCVI.setup_anndata(data, batch_key="batch")
        n_read.clear()
        module = SCVI(data, use_observed_lib_size=False).module
        return torch.cat([module.library_log_means, module.library_log_vars])

    def found(data: CellFiles) -> tuple[torch.Tensor, int]:
        return priors(data), sum(n_read)

    expected = priors(adata)
    first, n_first = found(cells)
    assert n_first == 300
    second, n_second = found(open_cells(files / "*.h5ad"))
    assert n_second == 0
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    # Other batches, other cells and other genes have sizes of their own.
    cells.obs["batch"] = cells.obs["batch"].to_numpy()[::-1]
    assert found(cells)[1] == 300
    part = cells[20:]
    assert found(part)[1] == 280
    assert torch.equal(found(part)[0], priors(part.to_memory()))
    assert found(cells[:, :35])[1] == 300


def test_the_prior_of_proteins_reads_no_genes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_read: list[int]
) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    adata = synthetic_iid(batch_size=40, n_genes=30, n_proteins=6, n_regions=0)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    modules = []
    for data in (adata, open_cells(tmp_path / "cells.h5ad")):
        TOTALVI.setup_anndata(
            data, batch_key="batch", protein_expression_obsm_key="protein_expression"
        )
        n_read.clear()
        modules.append(TOTALVI(data, empirical_protein_background_prior=True).module)
    assert n_read == []
    for name in ("background_pro_alpha", "background_pro_log_beta"):
        assert torch.equal(getattr(modules[0], name), getattr(modules[1], name))


@pytest.mark.trains
def test_validation_cells_are_drawn_from_all_files(cells: CellFiles) -> None:
    SCVI.setup_anndata(cells)
    model = SCVI(cells, n_hidden=8)
    model.train(max_epochs=1, seed=0)
    per_file = cells.obs["file"].iloc[model.validation_indices].value_counts()
    assert (per_file >= 5).all()
    assert len(per_file) == 3


def test_counts_are_checked_once_and_again_if_a_file_changed(
    cells: CellFiles, files: Path, adata: anndata.AnnData, n_read: list[int]
) -> None:
    SCVI.setup_anndata(cells)
    SCVI(cells)
    SCVI.setup_anndata(open_cells(files / "*.h5ad"))
    assert sum(n_read) == 300
    wrong = adata[:100].copy()
    wrong.X.data[wrong.X.indptr[2]] = np.nan
    wrong.write_h5ad(files / "new")
    (files / "new").replace(files / "part0.h5ad")
    changed = open_cells(files / "*.h5ad")
    with pytest.raises(InvalidDataError, match="1 NaN value, first in cell '2', gene 'gene_0'"):
        SCVI.setup_anndata(changed)
    assert sum(n_read) == 600


def test_an_interrupted_check_leaves_nothing(
    cells: CellFiles, files: Path, n_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(summary: checks.CountSummary, chunk: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checks.CountSummary, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            SCVI.setup_anndata(cells)
    assert not (files / "checked").exists()
    assert not cells.uns
    n_read.clear()
    SCVI.setup_anndata(cells)
    assert sum(n_read) == 300

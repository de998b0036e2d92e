"""Training and inference with sparse counts give the results of dense counts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from cellvae.core.csr_batch import CSRBatch
from cellvae.data.storage.sparse import sparse_rows_for
from cellvae.model import MULTIVI, PEAKVI, POISSONVI, SCANVI, SCVI, LinearSCVI
from cellvae.model.scvi import SCVIModule
from cellvae.nn.layers import SparseInputLinear
from cellvae.settings import settings

QUICK: dict[str, Any] = {
    "max_epochs": 3,
    "batch_size": 16,
    "accelerator": "cpu",
    "seed": 0,
    "enable_progress_bar": False,
    "check_val_every_n_epoch": 1,
}
MODELS = (SCVI, SCANVI, LinearSCVI, PEAKVI, POISSONVI)


@pytest.fixture(autouse=True)
def compiled() -> Iterator[None]:
    before, settings.kernels = settings.kernels, "compiled"
    yield
    settings.kernels = before


@pytest.fixture
def made() -> Callable[..., Any]:
    def make(kind: Any = SCVI, *, dense: bool = False, **config: Any) -> Any:
        rng = np.random.default_rng(0)
        counts = rng.poisson(rng.gamma(0.2, 0.8, size=(200, 60))).astype(np.float32)
        counts[rng.random(counts.shape) < 0.3] = 0
        counts[:, 0] += 1
        if kind is PEAKVI:
            counts = (counts > 0).astype(np.float32)
        adata = AnnData(counts if dense else sparse.csr_matrix(counts))
        adata.obs["batch"] = np.where(rng.random(200) < 0.5, "a", "b")
        adata.obs["label"] = rng.choice(["x", "y", "unknown"], 200)
        if kind is SCANVI:
            kind.setup_anndata(adata, "label", "unknown", batch_key="batch")
        else:
            kind.setup_anndata(adata, batch_key="batch")
        torch.manual_seed(0)
        return kind(adata, n_hidden=9, n_latent=3, **config)

    return make


def entries_of(model: Any) -> Any:
    return sparse_rows_for(model.module, model.rows)


@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_gradients_are_those_of_dense_counts(made: Any, kind: Any) -> None:
    model = made(kind)
    sparse_rows = entries_of(model)
    assert sparse_rows is not None
    found = []
    for rows in (model.rows, sparse_rows):
        batch = rows.take(torch.arange(40))
        if kind is SCANVI:
            batch = batch._replace(labels=batch.labels.clamp(max=1), n_labelled=9)
        torch.manual_seed(1)
        model.module.train().zero_grad()
        loss = model.module.loss(batch, torch.tensor(0.7))
        loss.loss.backward()
        found.append((loss, {n: p.grad.clone() for n, p in model.module.named_parameters()}))
    (plain, gradients), (mine, own) = found
    torch.testing.assert_close(
        mine.total_reconstruction, plain.total_reconstruction, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(mine.total_kl, plain.total_kl, rtol=1e-4, atol=1e-4)
    for name, gradient in gradients.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(own[name], gradient, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.trains
@pytest.mark.parametrize("kind", MODELS)
def test_a_run_and_its_answers_are_those_of_dense_counts(made: Any, kind: Any) -> None:
    models = [made(kind, dense=dense) for dense in (False, True)]
    for model in models:
        model.train(**QUICK)
    mine, plain = models
    for name in ("elbo_train", "elbo_validation"):
        np.testing.assert_allclose(mine.history[name], plain.history[name], rtol=1e-4)
    latent = mine.get_latent_representation()
    np.testing.assert_allclose(latent, plain.get_latent_representation(), rtol=1e-2, atol=1e-2)
    torch.manual_seed(0)
    elbo = mine.get_elbo(batch_size=70)
    torch.manual_seed(0)
    assert elbo == pytest.approx(plain.get_elbo(batch_size=70), rel=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        {"gene_likelihood": "nb", "dispersion": "gene-batch"},
        {"gene_likelihood": "poisson", "log_variational": False},
        {"use_observed_lib_size": False},
        {"n_layers": 2, "use_layer_norm": "both", "use_batch_norm": "none"},
        {"batch_representation": "embedding", "dispersion": "gene-cell"},
    ],
    ids=str,
)
def test_options_of_the_network_give_the_same_loss(made: Any, config: dict[str, Any]) -> None:
    model = made(SCVI, **config)
    sparse_rows = entries_of(model)
    assert sparse_rows is not None
    found = []
    for rows in (model.rows, sparse_rows):
        torch.manual_seed(1)
        found.append(model.module.loss(rows.take(torch.arange(40)), torch.ones(())))
    torch.testing.assert_close(found[0].total_reconstruction, found[1].total_reconstruction)
    torch.testing.assert_close(found[0].total_kl, found[1].total_kl)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.module.state_dict().items()}


@pytest.mark.trains
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_steps_of_a_block_do_not_change_a_bit(made: Any, optimizer: str) -> None:
    found = []
    for k in (1, 7, 1000):
        model = made()
        model.train(**QUICK, steps_per_block=k, plan_kwargs={"optimizer": optimizer})
        found.append(weights_of(model))
    for weights in found[1:]:
        assert all(torch.equal(weights[k], found[0][k]) for k in weights)


class Interrupts(pl.Callback):
    """Ctrl-C at the beginning of an epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.trains
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_a_resumed_run_ends_with_the_same_bits(made: Any, tmp_path: Path, optimizer: str) -> None:
    kwargs = {**QUICK, "max_epochs": 5, "resume": "auto", "plan_kwargs": {"optimizer": optimizer}}
    whole, cut, again = made(), made(), made()
    whole.train(**kwargs, run_dir=tmp_path / "whole")
    cut.train(**kwargs, run_dir=tmp_path / "cut", callbacks=[Interrupts()])
    again.train(**kwargs, run_dir=tmp_path / "cut")
    assert again.training_report.resumed_epoch == 2
    assert all(torch.equal(v, weights_of(again)[k]) for k, v in weights_of(whole).items())


@pytest.mark.trains
def test_weights_of_the_first_layer_are_column_major_and_saved_in_full(
    made: Any, tmp_path: Path
) -> None:
    model = made()
    model.train(**QUICK)
    (first,) = [
        part
        for part in model.module.modules()
        if isinstance(part, SparseInputLinear) and part.in_features == 60
    ]
    assert first.weight.stride() == (1, 9)
    model.save(tmp_path / "model")
    loaded = SCVI.load(tmp_path / "model", model.adata)
    assert all(torch.equal(v, weights_of(loaded)[k]) for k, v in weights_of(model).items())
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )
    # Further training starts from weights in the usual layout, with a new optimizer.
    loaded.train(**QUICK)
    assert loaded.history["elbo_train"].iloc[-1].item() > 0


def test_dense_counts_or_kernels_of_torch_stay_dense(made: Any) -> None:
    assert entries_of(made(dense=True)) is None
    model = made()
    settings.kernels = "torch"
    assert entries_of(model) is None


def test_covariates_in_the_encoder_and_normal_counts_stay_dense(made: Any) -> None:
    assert entries_of(made(encode_covariates=True)) is None
    assert entries_of(made(gene_likelihood="normal")) is None


def test_a_class_of_the_users_own_gets_dense_counts_unless_it_says_so(made: Any) -> None:
    class Own(SCVIModule):
        pass

    class Saying(SCVIModule):
        accepts_sparse = SCVIModule.accepts_sparse

    model = made()
    for kind, expected in ((Own, False), (Saying, True)):
        module = kind(model.module.sizes, model.module.config)
        assert (sparse_rows_for(module, model.rows) is not None) == expected


@pytest.mark.trains
def test_the_counts_of_a_batch_are_sparse(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    seen = []
    loss = SCVIModule.loss

    def noted(self: Any, batch: Any, weight: Any) -> Any:
        seen.append(isinstance(batch.counts, CSRBatch))
        return loss(self, batch, weight)

    monkeypatch.setattr(SCVIModule, "loss", noted)
    model.train(**QUICK)
    assert all(seen)
    seen.clear()
    model.get_elbo()
    assert seen == [True]
    seen.clear()
    model.train(**QUICK, precision="bf16-mixed")
    assert not any(seen)


@pytest.fixture
def multiome() -> Callable[..., MULTIVI]:
    """Genes of which half of the counts are zero, and regions of which most are."""

    def make(n_genes: int, form: Callable[[np.ndarray], Any]) -> MULTIVI:
        rng = np.random.default_rng(0)
        counts = np.hstack([rng.poisson(0.7, (120, n_genes)), rng.random((120, 50)) < 0.06])
        counts[:, -1] = 1
        adata = AnnData(form(counts.astype(np.float32)))
        adata.var["feature_types"] = n_genes * ["Gene Expression"] + 50 * ["Peaks"]
        MULTIVI.setup_anndata(adata)
        torch.manual_seed(0)
        return MULTIVI(adata, n_hidden=9, n_latent=3)

    return make


@pytest.mark.trains
@pytest.mark.parametrize("n_genes", [0, 12])
def test_regions_are_sparse_where_genes_are_not(
    multiome: Callable[..., MULTIVI], n_genes: int
) -> None:
    seen = []

    class Note(pl.Callback):
        def on_train_batch_start(self, trainer: Any, plan: Any, batch: Any, index: int) -> None:
            first = batch.rows.take(torch.arange(2))
            seen.append((type(first.counts), type(first.regions)))

    kwargs = QUICK | {"early_stopping": False}
    dense, found = multiome(n_genes, np.asarray), multiome(n_genes, sparse.csr_matrix)
    dense.train(**kwargs)
    found.train(callbacks=Note(), **kwargs)
    assert set(seen) == {(torch.Tensor if n_genes else type(None), CSRBatch)}
    for name in ("elbo_train", "elbo_validation"):
        expected = dense.history.table[name].to_numpy()
        np.testing.assert_allclose(found.history.table[name], expected, rtol=1e-4)


@pytest.mark.trains
def test_genes_in_no_order_train_as_those_in_order(made: Callable[..., Any]) -> None:
    models = []
    for shuffle in (False, True):
        model = made()
        if shuffle:
            matrix = model.adata.X
            for first, last in itertools.pairwise(matrix.indptr):
                order = np.random.default_rng(first).permutation(last - first)
                matrix.indices[first:last] = matrix.indices[first:last][order]
                matrix.data[first:last] = matrix.data[first:last][order]
            matrix.has_sorted_indices = False
            SCVI.setup_anndata(model.adata, batch_key="batch")
            torch.manual_seed(0)
            model = SCVI(model.adata, n_hidden=9, n_latent=3)
        model.train(**QUICK)
        models.append(model)
    for one, other in zip(*(each.module.parameters() for each in models), strict=True):
        assert torch.equal(one, other)

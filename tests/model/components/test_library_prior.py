"""Sizes of cells: learned from the data of each batch, or given by the user."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.data.batches.batching import iter_batches
from cellvae.errors import DataWarning
from cellvae.model import SCVI
from cellvae.model.components.library_prior import MIN_VARIANCE, library_stats_by_batch


def test_means_and_variances_are_those_of_log_sizes_in_each_batch(
    adata: AnnData, make: Callable[..., SCVI]
) -> None:
    rows = make(adata).rows
    logs = np.log(adata.X.sum(axis=1).astype(np.float64))
    codes = adata.obs["batch"].cat.codes.to_numpy()
    for batch_size in (7, 4096):
        means, variances = library_stats_by_batch(rows, 3, batch_size)
        assert means.shape == variances.shape == (1, 3)
        expected = [logs[codes == b] for b in range(3)]
        np.testing.assert_allclose(means[0], [x.mean() for x in expected], rtol=1e-6)
        np.testing.assert_allclose(variances[0], [x.var() for x in expected], rtol=1e-5)


def test_empty_cells_and_batches_and_equal_sizes_give_finite_numbers(adata: AnnData) -> None:
    batches = np.repeat(["alike", "empty cell"], 35)
    adata.obs["batch"] = pd.Categorical(batches, categories=["alike", "empty cell", "no cells"])
    adata.X[:35] = np.tile(adata.X[0], (35, 1))
    adata.X[40] = 0
    with pytest.warns(DataWarning, match="'cell40'"):
        SCVI.setup_anndata(adata, batch_key="batch")
        model = SCVI(adata, n_hidden=8, use_observed_lib_size=False)
    sizes = adata.X[35:].sum(axis=1).astype(np.float64)
    logs = np.log(np.where(sizes > 0, sizes, 1))
    module = model.module
    np.testing.assert_allclose(
        module.library_log_means[0], [np.log(adata.X[0].sum()), logs.mean(), 0], rtol=1e-6
    )
    np.testing.assert_allclose(module.library_log_vars[0], [MIN_VARIANCE, logs.var(), 1], rtol=1e-5)


def test_learned_sizes_are_saved_with_the_weights(
    adata: AnnData, make: Callable[..., SCVI]
) -> None:
    names = set(make(adata, use_observed_lib_size=False).module.state_dict())
    assert {"library_log_means", "library_log_vars", "l_encoder.mean_encoder.weight"} <= names
    assert not any(
        name.startswith(("l_encoder", "library")) for name in make(adata).module.state_dict()
    )


def test_expected_counts_grow_with_the_size_factor(
    cells: Callable[..., AnnData], make: Callable[..., SCVI]
) -> None:
    model = make(cells(), {"size_factor_key": "size"}, gene_likelihood="nb")
    _, batch = next(iter_batches(model.rows, torch.arange(70), 70))
    assert batch.size_factor is not None
    np.testing.assert_allclose(batch.size_factor[:, 0], model.adata.obs["size"], rtol=1e-6)
    with torch.no_grad():
        latent = model.module.encode(batch)
        first = model.module.decode(latent, batch)["rna"]
        third = model.module.decode(latent, batch._replace(size_factor=batch.size_factor * 3))[
            "rna"
        ]
        hidden = model.module.decoder.px_decoder(latent.sample, [batch.batch])
        rate = torch.nn.functional.softplus(model.module.decoder.px_scale_decoder[0](hidden))
    torch.testing.assert_close(first.mean, rate * batch.size_factor)
    torch.testing.assert_close(third.mean, 3 * first.mean)


def test_without_size_factors_expected_counts_add_up_to_those_of_the_cell(
    cells: Callable[..., AnnData], make: Callable[..., SCVI]
) -> None:
    ignoring = make(cells(), {"size_factor_key": "size"}, use_size_factor_key=False)
    for model in (make(cells(), gene_likelihood="nb"), ignoring):
        _, batch = next(iter_batches(model.rows, torch.arange(70), 70))
        with torch.no_grad():
            decoded = model.module.decode(model.module.encode(batch), batch)["rna"]
        torch.testing.assert_close(decoded.mu.sum(dim=1), batch.counts.sum(dim=1))


@pytest.mark.trains
@pytest.mark.filterwarnings("ignore::cellvae.errors.DataWarning")
def test_a_cell_without_counts_has_a_finite_loss(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    adata.X[4] = 0
    model = train(make(adata))
    assert np.isfinite(model.get_elbo(return_mean=False)).all()
    assert np.isfinite(model.get_latent_representation()).all()

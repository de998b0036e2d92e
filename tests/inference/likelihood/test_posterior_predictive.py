"""Draws from the posterior predictive against the distributions that they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from cellvae.errors import InvalidOptionError, UnknownKeyError
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson", "normal"])
def test_draws_have_the_mean_and_variance_of_the_likelihood(
    likelihood: str, trained: Callable[..., SCVI]
) -> None:
    """Total variance: that of the counts, and that of their mean over draws of the latent."""
    model = trained(gene_likelihood=likelihood)
    torch.manual_seed(0)
    samples = model.posterior_predictive_sample(n_samples=800, indices=range(20))
    draws = np.stack([s.toarray() for s in samples]).astype(np.float64)
    parameters = model.get_likelihood_parameters(n_samples=800, indices=range(20))
    mean = parameters["mean"].astype(np.float64)
    noise = parameters["dispersions"] ** 2 if likelihood == "normal" else mean
    if likelihood in ("nb", "zinb"):
        noise = mean + mean**2 / parameters["dispersions"]
    if likelihood == "zinb":
        zero = parameters["dropout"]
        noise = (1 - zero) * (noise + zero * mean**2)
        mean = (1 - zero) * mean
    variance = noise.mean(axis=0) + mean.var(axis=0)
    gap = (draws.mean(axis=0) - mean.mean(axis=0)) / np.sqrt(2 * variance / 800)
    assert np.abs(gap).max() < 5
    assert draws.var(axis=0).mean() == pytest.approx(variance.mean(), rel=0.05)


def test_one_sample_is_a_sparse_matrix_of_counts(trained: Callable[..., SCVI]) -> None:
    counts = trained().posterior_predictive_sample()
    assert isinstance(counts, sparse.csr_matrix)
    assert counts.shape == (60, 10)
    assert counts.dtype == np.float32
    assert counts.has_sorted_indices
    assert (counts.data > 0).all()
    assert (counts.data == counts.data.round()).all()


def test_zeros_are_as_frequent_as_the_likelihood_says(trained: Callable[..., SCVI]) -> None:
    model = trained()
    parameters = model.get_likelihood_parameters(n_samples=300)
    mean, theta, dropout = (parameters[n] for n in ("mean", "dispersions", "dropout"))
    expected = (dropout + (1 - dropout) * (theta / (theta + mean)) ** theta).mean(axis=0)
    torch.manual_seed(0)
    drawn = model.posterior_predictive_sample(n_samples=300)
    zeros = np.mean([s.toarray() == 0 for s in drawn], axis=0)
    errors = np.sqrt(expected * (1 - expected) / 300)
    assert np.abs((zeros - expected) / errors).max() < 5.5


def drawn(model: SCVI, **kwargs: Any) -> Any:
    """Draws with the same random numbers every time."""
    torch.manual_seed(0)
    return model.posterior_predictive_sample(**kwargs)


def test_genes_and_cells_come_in_the_order_asked(trained: Callable[..., SCVI]) -> None:
    model = trained()
    whole = drawn(model).toarray()
    assert np.array_equal(drawn(model, gene_list=["gene8", "gene2"]).toarray(), whole[:, [8, 2]])
    few = model.posterior_predictive_sample(indices=[9, 4], n_samples=400)
    all_cells = model.posterior_predictive_sample(n_samples=400)
    few_mean = np.mean([s.toarray() for s in few], axis=0)
    mean = np.mean([s.toarray() for s in all_cells], axis=0)
    np.testing.assert_allclose(few_mean.sum(axis=1), mean[[9, 4]].sum(axis=1), rtol=0.1)


def test_samples_differ_and_follow_the_seed(trained: Callable[..., SCVI]) -> None:
    model = trained()
    first, second = drawn(model, n_samples=2, batch_size=32)
    again = drawn(model, n_samples=2, batch_size=32)
    assert (first != second).nnz > 0
    assert (first != again[0]).nnz == 0
    assert (second != again[1]).nnz == 0


def test_other_batches_are_decoded_and_several_averaged(trained: Callable[..., SCVI]) -> None:
    model = trained(gene_likelihood="poisson")
    kwargs: dict[str, Any] = {"n_samples": 600, "indices": range(9)}
    expected = model.get_normalized_expression(
        library_size="latent", transform_batch=["b1", "b2"], return_numpy=True, **kwargs
    )
    draws = drawn(model, transform_batch=["b1", "b2"], **kwargs)
    mean = np.mean([s.toarray() for s in draws], axis=0)
    assert np.abs((mean - expected) / np.sqrt(expected / 1200)).max() < 5.5
    # Means of two counts are halves.
    assert set(np.unique(draws[0].data * 2 % 2)) == {0, 1}


def test_what_cannot_be_is_refused(trained: Callable[..., SCVI]) -> None:
    model = trained()
    with pytest.raises(InvalidOptionError, match="n_samples to be at least 1; got 0"):
        model.posterior_predictive_sample(n_samples=0)
    with pytest.raises(UnknownKeyError, match="Did you mean 'gene1'"):
        model.posterior_predictive_sample(gene_list=["Gene1"])
    with pytest.raises(UnknownKeyError, match="got 'z'"):
        model.posterior_predictive_sample(transform_batch="z")

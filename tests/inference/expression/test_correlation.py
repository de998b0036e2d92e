"""Correlations of genes against numpy and scipy on draws of a second kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from cellvae.distributions import NegativeBinomial
from cellvae.errors import InvalidOptionError
from cellvae.inference.expression import correlation
from cellvae.inference.expression.correlation import denoised_expression
from cellvae.inference.expression.correlation_moments import CorrelationMoments, RankTable
from cellvae.model import SCVI


def mixed(n_draws: int = 3_000) -> np.ndarray:
    """Positive values of five genes that go together, with ties."""
    random = np.random.default_rng(0)
    values = np.exp(random.normal(size=(n_draws, 5)) @ random.normal(size=(5, 5)))
    values[:, 4] = values[:, 4].round()
    return values.astype(np.float32) + 100


def parts_of(values: np.ndarray) -> list[torch.Tensor]:
    """Draws in parts."""
    return [torch.from_numpy(part) for part in np.array_split(values, 7)]


def test_coefficients_of_pearson_are_those_of_numpy() -> None:
    values, moments = mixed(), CorrelationMoments(5)
    for part in parts_of(values):
        moments.add(part)
    expected = np.corrcoef(values.T.astype(float))
    np.testing.assert_allclose(moments.coefficients(), expected, atol=1e-9)


def test_ranks_are_those_of_scipy() -> None:
    values = mixed()
    ranked = RankTable(5, len(values))
    for part in parts_of(values):
        ranked.add(part)
    ranks = torch.cat([ranked.ranks(part) for part in parts_of(values)])
    np.testing.assert_array_equal(ranks + 0.5, stats.rankdata(values, axis=0))


def test_a_gene_that_does_not_vary_has_no_coefficient() -> None:
    moments = CorrelationMoments(2)
    for value in (1.0, 2.5, 0.3):
        moments.add(torch.tensor([[value, 0.1], [3.0, 0.1]]))
    coefficients = moments.coefficients()
    assert coefficients[0, 0] == 1
    assert np.isnan([coefficients[0, 1], coefficients[1, 0], coefficients[1, 1]]).all()


@pytest.mark.trains
def test_ranks_among_some_draws_give_nearly_the_same(
    trained: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(gene_likelihood="poisson")
    matrices = []
    for most in (20_000, 5_000):
        monkeypatch.setattr(correlation, "MAX_RANKED", most)
        torch.manual_seed(0)
        matrices.append(model.get_feature_correlation_matrix(n_samples=300))
    assert not np.array_equal(*matrices)
    np.testing.assert_allclose(*matrices, atol=0.03)


def test_expression_is_drawn_from_the_gamma_of_the_counts() -> None:
    scale, theta = torch.tensor([0.2, 0.8]), torch.tensor([0.5, 4.0])
    counts = NegativeBinomial(mu=scale.expand(50_000, 2), theta=theta, scale=scale)
    torch.manual_seed(0)
    draws = denoised_expression(counts, 100.0).double()
    mean = 100 * scale.double()
    for gene in range(2):
        law = stats.gamma(theta[gene].item(), scale=(mean / theta)[gene].item())
        assert stats.kstest(draws[:, gene].numpy(), law.cdf).pvalue > 1e-4


@pytest.mark.trains
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson", "normal"])
@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_matrices_are_those_of_draws_of_expression(
    kind: str, likelihood: str, trained: Callable[..., SCVI]
) -> None:
    model = trained(gene_likelihood=likelihood)
    torch.manual_seed(0)
    matrix = model.get_feature_correlation_matrix(n_samples=100, correlation_type=kind)
    assert isinstance(matrix, pd.DataFrame)
    assert list(matrix.index) == list(matrix.columns) == list(model.adata.var_names)
    expression = model.get_normalized_expression(n_samples=100, return_mean=False)
    draws = 1000 * expression.reshape(-1, 10)
    if likelihood in ("zinb", "nb"):
        theta = model.get_likelihood_parameters()["dispersions"][0]
        draws = np.random.default_rng(0).gamma(theta, draws / theta)
    expected = pd.DataFrame(draws).corr(kind).to_numpy()
    np.testing.assert_allclose(matrix, expected, atol=0.06)
    np.testing.assert_allclose(np.diag(matrix), 1)
    np.testing.assert_allclose(matrix, matrix.T)


@pytest.mark.trains
def test_coefficients_for_several_batches_are_averaged(trained: Callable[..., SCVI]) -> None:
    model = trained(gene_likelihood="poisson")

    def matrix(batches: object) -> pd.DataFrame:
        torch.manual_seed(0)
        return model.get_feature_correlation_matrix(n_samples=300, transform_batch=batches)

    each = [matrix("b0"), matrix("b2")]
    assert not np.allclose(*each, atol=0.02)
    np.testing.assert_allclose(matrix(["b0", "b2"]), sum(each) / 2, atol=0.02)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"correlation_type": "spearmen"}, "Did you mean 'spearman'"),
        ({"n_samples": 0}, "n_samples to be at least 1"),
        ({"rna_size_factor": 0}, "rna_size_factor to be a positive number; got 0"),
        ({"n_samples": 1, "indices": [3]}, "at least two samples"),
    ],
)
def test_what_cannot_be_is_refused(
    kwargs: dict[str, object], message: str, trained: Callable[..., SCVI]
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        trained().get_feature_correlation_matrix(**kwargs)

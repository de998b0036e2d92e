"""The network of totalVI: closed forms, brute force, samples, missing proteins, priors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, LogNormal, MixtureSameFamily, Normal
from torch.distributions import NegativeBinomial as TorchNegativeBinomial

from cellvae.core.csr_batch import CSRBatch
from cellvae.errors import InvalidOptionError, UnknownOptionError
from cellvae.model.networks.totalvi_batch import TOTALVIBatch, divide_by_mean
from cellvae.model.networks.totalvi_config import TOTALVIConfig, TOTALVISizes
from cellvae.model.networks.totalvi_module import TOTALVIModule, init_from_data

N_CELLS, N_GENES, N_PROTEINS = 30, 20, 12
LACKS = ((True,) * 12, (True,) * 7 + (False,) * 5)


def new_batch() -> TOTALVIBatch:
    torch.manual_seed(0)
    codes = (torch.arange(N_CELLS) % 2)[:, None]
    return TOTALVIBatch(
        counts=torch.poisson(torch.rand(N_CELLS, N_GENES) * 4),
        batch=codes,
        labels=torch.zeros_like(codes),
        proteins=torch.poisson(torch.rand(N_CELLS, N_PROTEINS) * 40),
        panel=codes,
    )


def new_module(measured: Any = None, **config: Any) -> TOTALVIModule:
    torch.manual_seed(1)
    sizes = TOTALVISizes(
        n_genes=N_GENES, n_proteins=N_PROTEINS, n_batch=2, n_panels=2, measured=measured
    )
    module = TOTALVIModule(sizes, TOTALVIConfig(n_hidden=8, n_latent=3, **config)).eval()
    with torch.no_grad():
        module.log_per_batch_efficiency.normal_(0, 0.5)
        module.background_pro_log_beta.normal_(0, 0.3)
    return module


class FakeRows:
    """Cells in memory."""

    def __init__(self, batch: TOTALVIBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.proteins)

    def take(self, cells: Tensor) -> TOTALVIBatch:
        fields = (x[cells] if isinstance(x, Tensor) else x for x in self.batch)
        return TOTALVIBatch(*fields)


def test_proteins_have_the_likelihood_of_a_mixture_of_torch_in_double_precision() -> None:
    module, batch = new_module(), new_batch()
    with torch.no_grad():
        latent = module.encode(batch)
        loss_of_cells = -module.protein_log_likelihood(
            module.decode_logits(latent, batch), latent, batch
        )
        counts: Any = module.decode(latent, batch)["protein"]
    mu = torch.stack([counts.mu1, counts.mu2], dim=-1).double()
    theta = counts.theta1.double()[..., None].expand_as(mu)
    logits = torch.stack([counts.mixture_logits, torch.zeros_like(counts.mixture_logits)], -1)
    mixture = MixtureSameFamily(
        Categorical(logits=logits.double()),
        TorchNegativeBinomial(theta, logits=(mu / theta).log()),
    )
    expected = -mixture.log_prob(batch.proteins.double()).sum(dim=-1)
    np.testing.assert_allclose(loss_of_cells, expected, rtol=2e-5)


def test_kl_of_background_is_that_of_lognormals_by_integration() -> None:
    module, batch = new_module(), new_batch()
    with torch.no_grad():
        latent = module.encode(batch)
        decoded = module.decode_logits(latent, batch)
        found = module.kl_background(decoded, batch)
        posterior, prior = decoded.log_background, module.background_prior(batch)
        efficiency = module.log_efficiency(batch).exp().double()
        mixing = torch.sigmoid(decoded.mixture_logits.double()).log()
    # Of the background itself, which is log-normal: integrated over 8 standard deviations.
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None, None]
    loc, scale = posterior.loc.double(), posterior.scale.double()
    values = (loc + scale * grid).exp()
    q = LogNormal(loc, scale)
    p = LogNormal(prior.loc.double(), prior.scale.double())
    density = Normal(0.0, 1.0).log_prob(grid).exp()
    kl = torch.trapezoid(density * (q.log_prob(values) - p.log_prob(values)), grid, dim=0)
    expected = kl - LogNormal(0.0, 1.0).log_prob(efficiency) - 1e-3 * mixing
    np.testing.assert_allclose(found, expected.sum(dim=-1), rtol=1e-5)


def test_proteins_that_a_panel_lacks_change_neither_likelihood_nor_gradient() -> None:
    module, batch = new_module(LACKS), new_batch()
    lacking = ~module.measurement_masks(batch)["protein"]
    assert lacking.sum() == 5 * (N_CELLS // 2)
    assert module.adversarial and not new_module().adversarial
    assert new_module().measurement_masks(batch) == {}
    latent = module.encode(batch)._replace(posterior=None)
    other = batch._replace(proteins=torch.where(lacking, 999.0, batch.proteins))
    decoded = module.decode_logits(latent, batch)
    first, second = (module.protein_log_likelihood(decoded, latent, b) for b in (batch, other))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    (alpha,) = torch.autograd.grad(
        module.kl_background(decoded, batch).sum(), module.background_pro_alpha
    )
    assert (alpha[7:, 1] == 0).all() and (alpha[:7, 1] != 0).all() and (alpha[:, 0] != 0).all()


def test_marginal_likelihood_by_importance_is_that_by_prior_samples() -> None:
    """The ratios of latent, background and library size are right: two estimates agree."""
    torch.manual_seed(3)
    sizes = TOTALVISizes(
        n_genes=3, n_proteins=2, n_panels=2, measured=((True, True), (True, False))
    )
    config = TOTALVIConfig(n_latent=1, n_hidden=4, use_observed_lib_size=False)
    module = TOTALVIModule(sizes, config).eval()
    with torch.no_grad():  # posteriors wider than priors, so that the weights have no heavy tail
        module.background_pro_alpha.zero_()
        module.background_pro_log_beta.fill_(-1.0)
        module.encoder.z_var_encoder.bias.fill_(1.0)
        module.encoder.l_gene_var_encoder.bias.fill_(1.0)
    codes = torch.tensor([[0], [1]])
    batch = TOTALVIBatch(
        counts=torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]),
        batch=torch.zeros_like(codes),
        labels=torch.zeros_like(codes),
        proteins=torch.tensor([[3.0, 1.0], [6.0, 0.0]]),
        panel=codes,
    )
    n_samples = 200_000
    with torch.no_grad():
        encoded = module.encode(batch)
        latent, ratio = module.sample_with_log_ratio(encoded, batch, n_samples)
        likelihood = module.decode(latent, batch)
        by_importance = log_mean(sum_outputs(module, likelihood, batch) + ratio)
        # The prior of z and of the library size; the background from its prior by its noise.
        z = torch.randn(n_samples, 2, 1)
        library: Any = module.library_prior(batch)
        prior_latent = latent._replace(sample=z, log_library=library.sample((n_samples,)))
        posterior = module.decoder.log_background(z, [batch.batch])
        background = module.background_prior(batch).sample((n_samples,))
        noise = (background - posterior.loc) / posterior.scale
        likelihood = module.decode(prior_latent._replace(background_noise=noise), batch)
        by_prior = log_mean(sum_outputs(module, likelihood, batch))
    np.testing.assert_allclose(by_importance, by_prior, atol=0.05)


def sum_outputs(module: TOTALVIModule, decoded: dict[str, Any], batch: TOTALVIBatch) -> Tensor:
    of_genes: Tensor = decoded["rna"].log_prob(batch.counts).sum(dim=-1)
    of_proteins = decoded["protein"].log_prob(batch.proteins)
    return of_genes + module.sum_measured(of_proteins, batch)


def log_mean(logs: Tensor) -> Tensor:
    return logs.double().logsumexp(dim=0) - np.log(len(logs))


def test_stored_variance_is_a_variance() -> None:
    module, batch = new_module(), new_batch()
    with torch.no_grad():
        latent = module.encode(batch)
        stored = batch._replace(
            latent_mean=latent.posterior.loc,
            latent_variance=latent.posterior.scale.square(),
            library_mean=latent.log_library,
        )
        found = module.encode(stored)
    torch.testing.assert_close(found.posterior.scale, latent.posterior.scale)
    assert found.background_noise.shape == (N_CELLS, N_PROTEINS)
    assert found.log_library_posterior is None


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_cells_without_counts_have_finite_losses_and_gradients(likelihood: str) -> None:
    module, batch = new_module(gene_likelihood=likelihood), new_batch()
    batch = batch._replace(counts=batch.counts * 0, proteins=batch.proteins * 0)
    loss = module.loss(batch, torch.tensor(1.0)).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(weight.grad).all() for weight in module.parameters())


def test_features_of_sparse_counts_are_those_of_dense_ones() -> None:
    counts = new_batch().counts
    counts[3] = 0
    cells, genes = counts.nonzero(as_tuple=True)
    indptr = torch.zeros(N_CELLS + 1, dtype=torch.int64)
    indptr[1:] = (counts > 0).sum(dim=1).cumsum(0)
    sparse = divide_by_mean(CSRBatch(counts[cells, genes], genes.int(), indptr, N_GENES))
    assert isinstance(sparse, CSRBatch)
    expected = counts.double() / (1 + counts.double().mean(dim=1, keepdim=True))
    np.testing.assert_allclose(sparse.to_dense(), expected, rtol=1e-6)
    np.testing.assert_allclose(divide_by_mean(counts), expected, rtol=1e-6)


def test_priors_start_from_the_data() -> None:
    batch = new_batch()
    module = new_module(LACKS, use_observed_lib_size=False)
    init_from_data(module, FakeRows(batch))
    means = module.background_pro_alpha
    assert (means == means[:1]).all() and torch.isfinite(means).all()
    log_library = batch.counts.sum(dim=1).log().numpy()
    for code in (0, 1):
        of_batch = log_library[code::2]
        assert module.library_log_means[0, code] == pytest.approx(of_batch.mean(), rel=1e-5)
        assert module.library_log_vars[0, code] == pytest.approx(of_batch.var(), rel=1e-3)
    random = new_module(empirical_protein_background_prior=False)
    init_from_data(random, FakeRows(batch))
    assert (random.background_pro_alpha == 3).all()


def test_options_of_the_networks_are_checked() -> None:
    assert TOTALVIConfig().background_activation == "softplus"
    with pytest.raises(UnknownOptionError, match="activation_function_bg"):
        TOTALVIConfig(extra_decoder_kwargs={"activation_function": "exp"})
    with pytest.raises(InvalidOptionError, match="activation_function_bg"):
        TOTALVIConfig(extra_decoder_kwargs={"activation_function_bg": "relu"})
    with pytest.raises(UnknownOptionError):
        TOTALVIConfig(extra_encoder_kwargs={"n_layer": 2})


def test_one_output_is_decoded_as_both_are() -> None:
    module, batch = new_module(), new_batch()
    with torch.no_grad():
        latent = module.encode(batch)
        both = module.decode(latent, batch)
        for name, decoded in both.items():
            one: Any = module.decode_output(latent, batch, name)
            assert type(one) is type(decoded)
            torch.testing.assert_close(one.mean, decoded.mean, rtol=0, atol=0)

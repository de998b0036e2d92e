"""The network of SCVI: every combination of options, shapes, and what parameters mean."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from cellvae.contracts import CountLatent
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.components.count_features import Where
from cellvae.model.scvi import SCVIConfig, SCVIModule, SCVISizes

SIZES = SCVISizes(n_genes=6, n_batch=3, n_labels=2, n_cats_per_cov=(2, 1), n_continuous=1)
N_CELLS = 12


def batch(size_factor: bool = False) -> CountBatch:
    generator = torch.Generator().manual_seed(0)
    return CountBatch(
        counts=torch.poisson(torch.full((N_CELLS, 6), 3.0), generator=generator),
        batch=torch.arange(N_CELLS)[:, None] % 3,
        labels=torch.arange(N_CELLS)[:, None] % 2,
        size_factor=torch.rand(N_CELLS, 1, generator=generator) + 0.5 if size_factor else None,
        categorical=torch.stack([torch.arange(N_CELLS) // 6, torch.zeros(N_CELLS).long()], dim=1),
        continuous=torch.randn(N_CELLS, 1, generator=generator),
    )


def network(sizes: SCVISizes = SIZES, **config: Any) -> SCVIModule:
    torch.manual_seed(0)
    return SCVIModule(sizes, SCVIConfig(**{"n_hidden": 5, "n_latent": 2, **config}))


def check_gradients(module: SCVIModule, cells: CountBatch) -> None:
    module.train()
    loss = module.loss(cells, torch.tensor(1.0))
    assert torch.isfinite(loss.loss)
    loss.loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("bias"):
            assert parameter.grad.abs().max() > 0, name


# Observed sizes, batches as, covariates in the encoder, size factors: every pair of values.
WAYS = (
    (True, "one-hot", False, False),
    (True, "embedding", True, True),
    (False, "one-hot", True, False),
    (False, "embedding", False, False),
    (True, "one-hot", True, True),
)


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson", "normal"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
def test_every_likelihood_and_dispersion_trains_every_parameter(
    likelihood: str, dispersion: str
) -> None:
    for observed, representation, encoded, size_factor in WAYS:
        module = network(
            replace(SIZES, size_factor=size_factor),
            gene_likelihood=likelihood,
            dispersion=dispersion,
            use_observed_lib_size=observed,
            batch_representation=representation,
            encode_covariates=encoded,
        )
        check_gradients(module, batch(size_factor))


@pytest.mark.parametrize(
    ("latent", "deeply", "activation"),
    [("normal", True, "softplus"), ("normal", False, "exp"), ("ln", True, "exp")],
)
def test_every_shape_of_the_network_trains_every_parameter(
    latent: str, deeply: bool, activation: str
) -> None:
    for batch_norm, layer_norm in product(get_args(Where), get_args(Where)):
        module = network(
            n_layers=2,
            latent_distribution=latent,
            deeply_inject_covariates=deeply,
            var_activation=activation,
            use_batch_norm=batch_norm,
            use_layer_norm=layer_norm,
            encode_covariates=True,
            dropout_rate=0.0,
        )
        check_gradients(module, batch())


def test_normalisation_is_where_it_was_asked_for() -> None:
    for where, (encoder, decoder) in {
        "both": (True, True),
        "encoder": (True, False),
        "decoder": (False, True),
        "none": (False, False),
    }.items():
        module = network(use_batch_norm=where, use_layer_norm="none", use_observed_lib_size=False)
        for part, expected in (
            (module.z_encoder, encoder),
            (module.l_encoder, encoder),
            (module.decoder, decoder),
        ):
            found = any(isinstance(p, torch.nn.BatchNorm1d) for p in part.modules())
            assert found is expected


def test_widths_count_covariates_as_the_options_say() -> None:
    def widths(**config: Any) -> tuple[int, int]:
        module = network(**config)
        return (
            module.z_encoder.encoder.fc_layers[0][0].in_features,
            module.decoder.px_decoder.fc_layers[0][0].in_features,
        )

    columns = 3 + 2  # batches and the first covariate; the second has one category
    assert widths() == (6, 2 + 1 + columns)
    assert widths(encode_covariates=True) == (6 + 1 + columns, 2 + 1 + columns)
    embedded = {"batch_representation": "embedding", "batch_embedding_kwargs": {"embedding_dim": 4}}
    assert widths(**embedded) == (6, 2 + 1 + 4 + 2)
    assert widths(encode_covariates=True, **embedded) == (6 + 1 + 4 + 2, 2 + 1 + 4 + 2)


def test_networks_that_are_not_used_are_not_made() -> None:
    names = {
        name.partition(".")[0] for name, _ in network(gene_likelihood="poisson").named_parameters()
    }
    assert names == {"z_encoder", "decoder"}
    assert network(gene_likelihood="poisson").decoder.px_dropout_decoder is None
    assert network(dispersion="gene-cell").px_r is None
    assert network(dispersion="gene-batch").px_r.shape == (6, 3)
    assert network(dispersion="gene-label").px_r.shape == (6, 2)


@pytest.mark.parametrize(
    ("dispersion", "column"), [("gene", None), ("gene-batch", "batch"), ("gene-label", "labels")]
)
def test_the_dispersion_of_a_cell_is_that_of_its_group(dispersion: str, column: str | None) -> None:
    module, cells = network(dispersion=dispersion, gene_likelihood="nb"), batch()
    with torch.no_grad():
        theta = module.decode(module.encode(cells), cells)["rna"].theta.expand(N_CELLS, 6)
        for cell in range(N_CELLS):
            expected = module.px_r
            if column is not None:
                expected = module.px_r[:, int(getattr(cells, column)[cell])]
            torch.testing.assert_close(theta[cell], expected.exp())


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-cell"])
@pytest.mark.parametrize("representation", ["one-hot", "embedding"])
def test_samples_are_decoded_as_one_by_one(dispersion: str, representation: str) -> None:
    module = network(dispersion=dispersion, batch_representation=representation).eval()
    cells = batch()
    z = torch.randn(4, N_CELLS, 2)
    posterior = Normal(z[0], 1.0)
    library = cells.counts.sum(dim=1, keepdim=True).log()
    with torch.no_grad():
        many = module.decode(CountLatent(posterior, z, library.expand(4, -1, -1)), cells)["rna"]
        assert many.mean.shape == (4, N_CELLS, 6)
        for sample, decoded in zip(z, many.log_prob(cells.counts), strict=True):
            one = module.decode(CountLatent(posterior, sample, library), cells)["rna"]
            torch.testing.assert_close(decoded, one.log_prob(cells.counts))


def test_batches_reach_the_counts_through_the_decoder_alone() -> None:
    module, cells = network().eval(), batch()
    other = cells._replace(batch=(cells.batch + 1) % 3)
    with torch.no_grad():
        torch.manual_seed(0)
        first = module.encode(cells)
        torch.manual_seed(0)
        second = module.encode(other)
        torch.testing.assert_close(first.sample, second.sample, rtol=0, atol=0)
        assert not torch.equal(
            module.decode(first, cells)["rna"].mean, module.decode(first, other)["rna"].mean
        )


def test_an_embedded_batch_is_its_row_of_the_table() -> None:
    module, cells = network(batch_representation="embedding").eval(), batch()
    columns = module.dense_covariates(cells)
    assert module.batch_embedding.weight.shape == (3, 5)
    torch.testing.assert_close(columns[:, 1:], module.batch_embedding.weight[cells.batch[:, 0]])
    torch.testing.assert_close(columns[:, :1], cells.continuous)


def test_the_encoder_reads_logarithms_unless_told_otherwise() -> None:
    cells = batch()
    logged = cells._replace(counts=torch.log1p(cells.counts))
    with torch.no_grad():
        first = network(log_variational=True).eval().encode(cells).posterior
        second = network(log_variational=False).eval().encode(logged).posterior
    torch.testing.assert_close(first.loc, second.loc)
    torch.testing.assert_close(first.scale, second.scale)


def test_the_weight_of_the_divergence_leaves_that_of_sizes_alone() -> None:
    module, cells = network(use_observed_lib_size=False).eval(), batch()
    losses = []
    for weight in (0.0, 0.25, 1.0):
        torch.manual_seed(0)
        losses.append(module.loss(cells, torch.tensor(weight)))
    torch.manual_seed(0)
    latent = module.encode(cells)
    sizes = module.kl_library(latent, cells)
    assert (sizes > 0).all()
    for weight, loss in zip((0.0, 0.25, 1.0), losses, strict=True):
        expected = loss.total_reconstruction + weight * (loss.total_kl - sizes) + sizes
        np.testing.assert_allclose(loss.loss.item(), expected.mean().item(), rtol=1e-6)


def test_defaults_are_those_of_scvi_tools() -> None:
    config = SCVIConfig()
    assert (config.n_hidden, config.n_latent, config.n_layers) == (128, 10, 1)
    assert (config.dropout_rate, config.dispersion, config.gene_likelihood) == (0.1, "gene", "zinb")
    assert (config.use_batch_norm, config.use_layer_norm) == ("both", "none")
    assert config.embedding_dim == 5

"""MultiVI's network: options that scvi-tools fails with, missing modalities, and its contract."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.distributions import Normal

from cellvae import settings
from cellvae.errors import InvalidOptionError
from cellvae.model.networks.multivi_module import MULTIVIBatch, MULTIVIModule
from cellvae.model.networks.multivi_network import MULTIVIConfig, MULTIVISizes

N_CELLS, N_GENES, N_REGIONS, N_PROTEINS = 12, 20, 30, 5
WITHOUT = {"rna": "n_genes", "accessibility": "n_regions", "protein": "n_proteins"}


def make_sizes(**sizes: Any) -> MULTIVISizes:
    """Sizes of a network of three modalities, three batches and two labels."""
    given = {"n_genes": N_GENES, "n_regions": N_REGIONS, "n_proteins": N_PROTEINS}
    return MULTIVISizes(**{**given, "n_batch": 3, "n_labels": 2, "n_cells": N_CELLS, **sizes})


def make_module(sizes: MULTIVISizes | None = None, **config: Any) -> MULTIVIModule:
    """Network without dropout, with seeded weights."""
    torch.manual_seed(0)
    options = MULTIVIConfig(**{"dropout_rate": 0.0, **config})
    return MULTIVIModule(make_sizes() if sizes is None else sizes, options)


def make_batch(sizes: MULTIVISizes | None = None) -> MULTIVIBatch:
    """Cells of which two thirds have each modality; the last has none."""
    sizes = make_sizes() if sizes is None else sizes
    torch.manual_seed(1)
    values = {}
    for i, (field, n) in enumerate(
        {
            "counts": sizes.n_genes,
            "regions": sizes.n_regions,
            "proteins": sizes.n_proteins,
        }.items()
    ):
        counts = torch.poisson(torch.full((N_CELLS, n), 2.0))
        counts[i::3] = 0
        counts[-1] = 0
        values[field] = counts if n else None
    return MULTIVIBatch(
        batch=torch.arange(N_CELLS)[:, None] % sizes.n_batch,
        labels=torch.arange(N_CELLS)[:, None] % sizes.n_labels,
        cell_index=torch.arange(N_CELLS)[:, None],
        **values,
    )


def decode_at_mean(module: MULTIVIModule, batch: MULTIVIBatch) -> dict[str, Any]:
    """Distributions for the means of the posteriors."""
    latent = module.eval().encode(batch)
    return module.decode(latent._replace(sample=latent.posterior.loc), batch)


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
def test_every_dispersion_of_genes_trains(
    dispersion: str, likelihood: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "kernels", kernels)
    module = make_module(dispersion=dispersion, gene_likelihood=likelihood)
    module.loss(make_batch(), torch.tensor(1.0)).loss.backward()
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads.values())


@pytest.mark.parametrize("by", ["batch", "label"])
def test_inverse_dispersion_is_that_of_the_category_of_the_cell(by: str) -> None:
    module, batch = make_module(dispersion=f"gene-{by}"), make_batch()
    codes = getattr(batch, {"batch": "batch", "label": "labels"}[by])[:, 0]
    theta = decode_at_mean(module, batch)["rna"].theta
    torch.testing.assert_close(theta, module.px_r.T[codes].exp())
    module = make_module(protein_dispersion=f"protein-{by}")
    theta = decode_at_mean(module, batch)["protein"].theta1
    torch.testing.assert_close(theta, module.py_r.T[codes].exp())


@pytest.mark.parametrize("absent", [(), *((name,) for name in WITHOUT), *[
    tuple(name for name in WITHOUT if name != only) for only in WITHOUT
]])  # fmt: skip
@pytest.mark.parametrize("penalty", ["Jeffreys", "MMD"])
def test_any_modalities_do_and_cells_without_any_have_no_loss(
    absent: tuple[str, ...], penalty: str
) -> None:
    sizes = make_sizes(**{WITHOUT[name]: 0 for name in absent})
    module = make_module(sizes, modality_penalty=penalty, modality_weights="universal")
    assert module.outputs == tuple(name for name in WITHOUT if name not in absent)
    batch = make_batch(sizes)
    loss = module.loss(batch, torch.tensor(1.0))
    loss.loss.backward()
    assert torch.isfinite(loss.loss)
    assert set(module.decode(module.encode(batch), batch)) == set(module.outputs)
    assert float(loss.total_reconstruction[-1].detach()) == 0
    assert float(loss.kl_local["kl_divergence_z"][-1].detach()) == pytest.approx(0, abs=1e-6)
    for parameter in module.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_no_features_at_all_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="got no features at all"):
        MULTIVISizes()


def test_values_that_were_not_measured_change_nothing() -> None:
    module, batch = make_module().eval(), make_batch()
    masks = module.has_modality(batch)
    named = dict(zip(("has_rna", "has_regions", "has_proteins"), masks.values(), strict=True))
    hidden = batch._replace(
        **named,
        counts=torch.where(masks["rna"], batch.counts, 7.0),
        regions=torch.where(masks["accessibility"], batch.regions, 1.0),
        proteins=torch.where(masks["protein"], batch.proteins, 300.0),
    )
    torch.manual_seed(2)
    expected = module.loss(batch, torch.tensor(1.0))
    torch.manual_seed(2)
    found = module.loss(hidden, torch.tensor(1.0))
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.latent, expected.latent)


def test_a_modality_that_was_measured_as_zero_is_read() -> None:
    module, batch = make_module().eval(), make_batch()
    everywhere = torch.ones(N_CELLS, 1, dtype=torch.bool)
    losses = module.loss(batch._replace(has_proteins=everywhere), torch.tensor(1.0))
    assert (losses.reconstruction["reconstruction_loss_protein"] > 0).all()


def test_proteins_that_a_panel_lacks_are_not_in_the_likelihood() -> None:
    panels = ((True,) * N_PROTEINS, (True, False, True, False, True))
    module = make_module(make_sizes(panels=panels)).eval()
    panel = torch.arange(N_CELLS)[:, None] % 2
    batch = make_batch()._replace(panel=panel)
    latent = module.encode(batch)
    found = module.log_likelihood(latent, batch)["protein"]
    log_prob = module.decode_proteins(latent, batch).log_prob(batch.proteins)
    kept = torch.tensor(panels)[panel[:, 0]] & (batch.proteins.sum(dim=1, keepdim=True) > 0)
    torch.testing.assert_close(found, (log_prob * kept).sum(dim=1))
    assert "in_panel" not in module.state_dict()
    with torch.device("meta"):
        on_meta = MULTIVIModule(module.sizes, module.config)
    on_meta.load_state_dict(module.state_dict(), assign=True)
    assert on_meta.in_panel.tolist() == [list(row) for row in panels]


def test_log_likelihoods_of_inference_are_those_of_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "kernels", "compiled")
    module, batch = make_module().eval(), make_batch()
    with torch.no_grad():
        latent = module.encode(batch)
        training, inference = (
            module.log_likelihood(latent, batch),
            module.log_likelihoods(latent, batch),
        )
    assert list(training) == list(inference) == list(module.outputs)
    for name in training:
        torch.testing.assert_close(training[name].double(), inference[name], rtol=1e-4, atol=1e-3)


def test_log_ratio_of_samples_is_that_of_prior_and_posterior() -> None:
    module, batch = make_module().eval(), make_batch()
    latent = module.encode(batch)
    with torch.no_grad():
        sampled, logs = module.sample_with_log_ratio(latent, batch, 4)
        decoded = module.decode(sampled, batch)
    z = sampled.sample
    expected = (Normal(0.0, 1.0).log_prob(z) - latent.posterior.log_prob(z)).sum(dim=-1)
    torch.testing.assert_close(logs, expected.double(), rtol=1e-5, atol=1e-5)
    assert decoded["rna"].mu.shape == (4, N_CELLS, N_GENES)
    assert decoded["accessibility"].mean.shape == (4, N_CELLS, N_REGIONS)
    assert decoded["protein"].mean.shape == (4, N_CELLS, N_PROTEINS)
    assert sampled.background_noise.std() > 0.5
    assert module.sample_with_log_ratio(latent, None, 4)[1].abs().max() == 0


def test_cells_that_were_not_seen_have_the_mean_weights() -> None:
    module = make_module(modality_weights="cell")
    with torch.no_grad():
        module.mod_weights.copy_(torch.randn(N_CELLS, 3))
    batch = make_batch()
    found = module.mixture_logits(batch._replace(cell_index=None))
    torch.testing.assert_close(found, module.mod_weights.mean(dim=0, keepdim=True))
    torch.testing.assert_close(module.mixture_logits(batch), module.mod_weights)


@pytest.mark.parametrize(
    ("n_batch", "fully_paired", "expected"), [(3, False, True), (3, True, False), (1, False, False)]
)
def test_a_classifier_of_batches_is_wanted_where_there_is_something_to_mix(
    n_batch: int, fully_paired: bool, expected: bool
) -> None:
    module = make_module(make_sizes(n_batch=n_batch), fully_paired=fully_paired)
    assert module.adversarial is expected
    assert module.n_adversarial_classes == n_batch
    batch = make_batch(make_sizes(n_batch=n_batch))
    assert module.adversarial_targets(batch).tolist() == batch.batch[:, 0].tolist()
    assert module.loss(batch, torch.tensor(1.0)).latent.shape == (N_CELLS, module.n_latent)


def test_one_modality_alone_has_nothing_to_mix() -> None:
    sizes = dataclasses.replace(make_sizes(n_batch=3), n_regions=0, n_proteins=0, panels=())
    assert not make_module(sizes).adversarial
    assert make_module(make_sizes(n_batch=3)).adversarial


@pytest.mark.parametrize("output", ["rna", "accessibility", "protein"])
def test_one_output_is_decoded_without_the_others(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = make_module(), make_batch()
    with torch.no_grad():
        latent = module.encode(batch)
        whole = module.decode(latent, batch)[output]
        decoders = {
            "rna": module.z_decoder_expression,
            "accessibility": module.z_decoder_accessibility,
            "protein": module.z_decoder_pro,
        }
        for name, decoder in decoders.items():
            if name != output:
                monkeypatch.setattr(decoder, "forward", None)
        one = module.decode_output(latent, batch, output)
    torch.testing.assert_close(one.mean, whole.mean, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"n_regions": 1_000}, (31, 5)),
        ({"n_regions": 100_000}, (128, 11)),
        ({"n_regions": 0, "n_genes": 400}, (20, 4)),
        ({"n_regions": 0, "n_genes": 0, "n_proteins": 10}, (3, 1)),
    ],
)
def test_default_widths_are_square_roots(sizes: dict[str, int], expected: tuple[int, int]) -> None:
    module = make_module(make_sizes(**sizes))
    assert (module.n_hidden, module.n_latent) == expected


def test_huge_counts_and_a_single_cell_give_a_finite_loss() -> None:
    module = make_module(use_batch_norm="both").train()
    batch = make_batch()
    huge = batch._replace(counts=batch.counts * 1e6, proteins=batch.proteins * 1e6)
    assert torch.isfinite(module.loss(huge, torch.tensor(1.0)).loss)
    one = MULTIVIBatch(*(None if values is None else values[:1] for values in batch))
    assert torch.isfinite(module.loss(one, torch.tensor(1.0)).loss)


def test_scale_is_that_of_the_first_modality() -> None:
    module, batch = make_module().eval(), make_batch()
    latent = module.encode(batch)
    found = module.decode_scale(latent, batch)
    torch.testing.assert_close(found, module.decode(latent, batch)["rna"].scale)
    sizes = make_sizes(n_genes=0)
    module, batch = make_module(sizes).eval(), make_batch(sizes)
    latent = module.encode(batch)
    expected = module.decode(latent, batch)["accessibility"].get_normalized("scale")
    torch.testing.assert_close(module.decode_scale(latent, batch), expected)

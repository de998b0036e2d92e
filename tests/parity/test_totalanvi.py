"""TOTALANVI beside scvi-tools' numbers for the same weights, cells and noise."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from cellvae.model.networks.totalvi_batch import TOTALVIBatch
from cellvae.model.networks.totalvi_config import TOTALVISizes
from cellvae.model.networks.totalvi_module import TOTALVIModule
from cellvae.model.totalanvi import TOTALANVIConfig, TOTALANVIModule

sys.path.insert(0, str(Path(__file__).parent))

import totalvi_cases as cases

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def new_module(name: str) -> TOTALANVIModule:
    """Network of a case in eval mode, with its weights."""
    covariates = name in cases.WITH_COVARIATES
    sizes = TOTALVISizes(
        n_genes=cases.N_GENES,
        n_proteins=cases.N_PROTEINS,
        n_batch=cases.N_BATCH,
        n_labels=cases.N_KNOWN_LABELS,
        n_cats_per_cov=cases.N_CATS_PER_COV if covariates else (),
        n_continuous=cases.N_CONTINUOUS if covariates else 0,
        n_panels=cases.N_BATCH,
        measured=cases.MEASURED.get(name),
    )
    config = TOTALANVIConfig(
        n_hidden=cases.N_HIDDEN,
        n_latent=cases.N_LATENT,
        **cases.CONFIGS[name],
        **cases.LABEL_OPTIONS[name],
    )
    module = TOTALANVIModule(sizes, config)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point() and key != "y_prior":
                tensor.copy_(torch.from_numpy(cases.new_weight(key, tuple(tensor.shape))))
    return module.eval()


def new_batch(name: str) -> TOTALVIBatch:
    """Cells of a case, with the first of them as labelled cells at the end."""
    x = {key: torch.from_numpy(value) for key, value in cases.new_inputs().items()}
    x["labels"] = torch.from_numpy(cases.new_labels())
    x = {key: torch.cat([value, value[: cases.N_LABELLED]]) for key, value in x.items()}
    covariates = name in cases.WITH_COVARIATES
    return TOTALVIBatch(
        counts=x["counts"],
        batch=x["batch"],
        labels=x["labels"],
        proteins=x["proteins"],
        panel=x["batch"],
        categorical=x["categorical"] if covariates else None,
        continuous=x["continuous"] if covariates else None,
        n_labelled=cases.N_LABELLED,
    )


@pytest.fixture(autouse=True)
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def noise(shape: Any) -> Tensor:
        return torch.from_numpy(cases.new_noise(tuple(shape)))

    monkeypatch.setattr(
        Normal, "rsample", lambda self, shape=(): self.loc + self.scale * noise(self.loc.shape)
    )
    monkeypatch.setattr(
        TOTALVIModule,
        "draw_noise",
        lambda self, z: noise((*z.shape[:-1], self.sizes.n_proteins)),
    )


@pytest.mark.parametrize("name", cases.LABEL_OPTIONS)
def test_loss_scores_and_gradients_are_those_of_scvi_tools(name: str) -> None:
    with np.load(Path(__file__).with_name("totalanvi.npz")) as arrays:
        start = f"{name}: "
        theirs = {
            key.removeprefix(start): torch.from_numpy(arrays[key])
            for key in arrays
            if key.startswith(start)
        }
    module, batch = new_module(name), new_batch(name)
    loss = module.loss(batch, torch.tensor(0.6))
    loss.loss.backward()
    n = cases.N_LABELLED
    labelled = TOTALVIBatch(*(x[-n:] if isinstance(x, Tensor) else x for x in batch))
    for ours, key in (
        (loss.loss, "loss"),
        (loss.reconstruction["reconstruction_loss_gene"], "reconst_loss_gene"),
        (loss.reconstruction["reconstruction_loss_protein"], "reconst_loss_protein"),
        (loss.kl_local["kl_div_back_pro"], "kl_div_back_pro"),
        (module.classify(labelled), "scores"),
        (module.metrics_from_sums(loss.extra_metrics)["classification_loss"], "cross_entropy"),
    ):
        torch.testing.assert_close(ours, theirs[key], **CLOSE, msg=lambda m, k=key: k + m)
    gradients = {k: w.grad for k, w in module.named_parameters() if w.grad is not None}
    found = {key.removeprefix("grad ") for key in theirs if key.startswith("grad ")}
    assert set(gradients) <= found
    for key, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, theirs[f"grad {key}"], **CLOSE, msg=lambda m, k=key: k + m
        )


@pytest.mark.parametrize("name", cases.LABEL_OPTIONS)
def test_parts_sum_to_the_negative_elbo(name: str) -> None:
    module, batch = new_module(name), new_batch(name)._replace(n_labelled=0)
    loss = module.loss(batch, torch.tensor(1.0))
    total = loss.total_reconstruction + loss.total_kl
    torch.testing.assert_close(loss.loss, total.mean())


def test_dispersions_of_unlabelled_cells_are_the_mean_over_labels() -> None:
    sizes = replace(new_module("plain").sizes, measured=None)
    config = TOTALANVIConfig(
        n_hidden=8,
        n_latent=3,
        gene_dispersion="gene-label",
        protein_dispersion="protein-label",
        y_prior=(0.5, 0.3, 0.2),
    )
    module = TOTALANVIModule(sizes, config)
    batch = new_batch("plain")
    labels = batch.labels.clone()
    labels[0] = cases.N_KNOWN_LABELS
    for weight, kind in ((module.px_r, "gene-label"), (module.py_r, "protein-label")):
        theta = module.dispersion(batch._replace(labels=labels), weight, kind)
        mean = (weight @ torch.tensor([0.5, 0.3, 0.2])).exp()
        torch.testing.assert_close(theta[0], mean)
        torch.testing.assert_close(theta[1:], weight.exp().T[labels[1:, 0]])

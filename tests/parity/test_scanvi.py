"""SCANVI beside scvi-tools' numbers for the same weights, cells and noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from cellvae.inference.labels.attributions import integrated_gradients
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.scanvi import SCANVIConfig, SCANVIModule
from cellvae.model.scvi import SCVISizes
from cellvae.settings import settings

N_LABELLED = 8
CASES: dict[str, dict[str, Any]] = {
    "plain": {"gene_likelihood": "zinb", "n_layers": 2},
    "linear": {
        "gene_likelihood": "nb",
        "linear_classifier": True,
        "dispersion": "gene-batch",
        "use_observed_lib_size": False,
        "encode_covariates": True,
    },
    "probabilities": {
        "gene_likelihood": "nb",
        "encode_covariates": True,
        "classifier_parameters": {"logits": False, "n_layers": 2},
    },
}


def noise_of(shape: torch.Size) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(shape.numel()).normal(size=shape)).float()


FIELDS = ("counts", "batch", "labels", "categorical", "continuous")


def written(name: str) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Numbers of a case, and the fields of the cells."""
    with np.load(Path(__file__).with_name("scanvi.npz")) as arrays:
        theirs = {key: torch.from_numpy(arrays[key]) for key in arrays}
    own = {k.removeprefix(f"{name} "): v for k, v in theirs.items() if k.startswith(f"{name} ")}
    return own, [theirs["codes" if field == "categorical" else field] for field in FIELDS]


def module_of(name: str, own: dict[str, torch.Tensor]) -> SCANVIModule:
    """Our module with the weights of a case."""
    sizes = SCVISizes(n_genes=12, n_batch=3, n_labels=4, n_cats_per_cov=(2,), n_continuous=1)
    module = SCANVIModule(sizes, SCANVIConfig(n_hidden=8, n_latent=3, **CASES[name])).eval()
    expected = set(module.state_dict())
    weights = {k.removeprefix("weight "): v for k, v in own.items() if k.startswith("weight ")}
    module.load_state_dict({key: tensor for key, tensor in weights.items() if key in expected})
    return module


@pytest.mark.parametrize("name", CASES)
def test_latent_losses_labels_and_gradients_are_those_of_scvi_tools(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, parts = written(name)
    module = module_of(name, own)
    monkeypatch.setattr(
        Normal, "rsample", lambda self, shape=(): self.loc + self.scale * noise_of(self.loc.shape)
    )
    whole = CountBatch(
        **{f: torch.cat([p, p[:N_LABELLED]]) for f, p in zip(FIELDS, parts, strict=True)},
        n_labelled=N_LABELLED,
    )
    cells = CountBatch(**dict(zip(FIELDS, parts, strict=True)))
    with monkeypatch.context() as patched:
        patched.setitem(settings.values, "kernels", "torch")
        loss = module.loss(whole, torch.tensor(0.7))
    loss.loss.backward()
    sums = module.metrics_from_sums(loss.extra_metrics)
    scores = module.classify(cells)
    for ours, key in (
        (module.encode(cells).posterior.loc, "mean"),
        (loss.total_reconstruction, "reconstruction"),
        (loss.total_kl, "kl"),
        (loss.loss, "loss"),
        (sums["classification_loss"], "cross_entropy"),
        (scores.softmax(dim=-1) if module.gives_logits else scores, "probabilities"),
        (module.z_encoder.encoder.fc_layers[0][0].weight.grad, "gradient"),
    ):
        torch.testing.assert_close(ours, own[key], rtol=2e-5, atol=2e-5, msg=lambda m, k=key: k + m)


@pytest.mark.parametrize("name", CASES)
def test_attributions_are_those_of_scvi_tools(name: str) -> None:
    pytest.importorskip("captum")
    own, parts = written(name)
    module = module_of(name, own).train()
    cells = CountBatch(**dict(zip(FIELDS, parts, strict=True)))
    with torch.inference_mode():
        labels = module.eval().classify(cells).argmax(dim=-1)
    found = integrated_gradients(module, cells, labels.clone(), {})
    torch.testing.assert_close(found, own["attributions"], rtol=1e-4, atol=1e-6)
    assert all(weight.requires_grad for weight in module.parameters())

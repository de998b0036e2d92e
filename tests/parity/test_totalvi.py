"""TOTALVI beside scvi-tools' numbers for the same weights, cells and noise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from cellvae.core.csr_batch import CSRBatch
from cellvae.model.networks.totalvi_batch import TOTALVIBatch
from cellvae.model.networks.totalvi_config import TOTALVIConfig, TOTALVISizes
from cellvae.model.networks.totalvi_module import TOTALVIModule
from cellvae.settings import settings

sys.path.insert(0, str(Path(__file__).parent))

import totalvi_cases as cases

LOSS_PARTS = {
    "reconstruction_loss_gene": "reconst_loss_gene",
    "reconstruction_loss_protein": "reconst_loss_protein",
    "kl_div_z": "kl_div_z",
    "kl_div_l_gene": "kl_div_l_gene",
    "kl_div_back_pro": "kl_div_back_pro",
}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def theirs(name: str) -> dict[str, Tensor]:
    """Numbers of scvi-tools for a case."""
    with np.load(Path(__file__).with_name("totalvi.npz")) as arrays:
        start = f"{name}: "
        return {
            key.removeprefix(start): torch.from_numpy(arrays[key])
            for key in arrays
            if key.startswith(start)
        }


def new_module(name: str, **further: Any) -> TOTALVIModule:
    """Network of a case, with its weights."""
    covariates = name in cases.WITH_COVARIATES
    sizes = TOTALVISizes(
        n_genes=cases.N_GENES,
        n_proteins=cases.N_PROTEINS,
        n_batch=cases.N_BATCH,
        n_labels=cases.N_LABELS,
        n_cats_per_cov=cases.N_CATS_PER_COV if covariates else (),
        n_continuous=cases.N_CONTINUOUS if covariates else 0,
        size_factor=name in cases.WITH_SIZE_FACTOR,
        n_panels=2 if name == "panels" else cases.N_BATCH,
        measured=cases.MEASURED.get(name),
    )
    config = TOTALVIConfig(
        n_hidden=cases.N_HIDDEN,
        n_latent=cases.N_LATENT,
        dropout_rate_encoder=0.0,
        dropout_rate_decoder=0.0,
        **cases.CONFIGS[name],
        **further,
    )
    module = TOTALVIModule(sizes, config)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(cases.new_weight(key, tuple(tensor.shape))))
    return module


def new_batch(name: str) -> TOTALVIBatch:
    """Cells of a case."""
    x = {key: torch.from_numpy(value) for key, value in cases.new_inputs().items()}
    covariates = name in cases.WITH_COVARIATES
    return TOTALVIBatch(
        counts=x["counts"],
        batch=x["batch"],
        labels=x["labels"],
        proteins=x["proteins"],
        panel=x["panel"] if name == "panels" else x["batch"],
        size_factor=x["size_factor"] if name in cases.WITH_SIZE_FACTOR else None,
        categorical=x["categorical"] if covariates else None,
        continuous=x["continuous"] if covariates else None,
    )


def to_sparse(counts: Tensor) -> CSRBatch:
    """Counts in CSR layout."""
    cells, genes = counts.nonzero(as_tuple=True)
    indptr = torch.zeros(len(counts) + 1, dtype=torch.int64)
    indptr[1:] = torch.bincount(cells, minlength=len(counts)).cumsum(0)
    return CSRBatch(counts[cells, genes], genes.int(), indptr, counts.shape[1])


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of the step, which determines the noise of all samples."""
    current = [0]

    def noise(shape: Any) -> Tensor:
        return torch.from_numpy(cases.new_noise(tuple(shape), current[0]))

    def rsample(self: Normal, sample_shape: Any = ()) -> Tensor:
        return self.loc + self.scale * noise(self.loc.shape)

    def draw_noise(self: TOTALVIModule, z: Tensor) -> Tensor:
        return noise((*z.shape[:-1], self.sizes.n_proteins))

    monkeypatch.setattr(Normal, "rsample", rsample)
    monkeypatch.setattr(TOTALVIModule, "draw_noise", draw_noise)
    return current


@pytest.fixture(params=["torch", "compiled", "sparse"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a step is computed: by torch, by kernels, or by kernels from sparse counts."""
    monkeypatch.setattr(settings, "kernels", "torch" if request.param == "torch" else "compiled")
    return str(request.param)


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_posterior_rates_and_weights_have_the_numbers_and_names_of_scvi_tools(
    name: str, step: list[int]
) -> None:
    module, batch, target = new_module(name), new_batch(name), theirs(name)
    unused = {"encoder.l_gene", "decoder.px_dropout_decoder_gene"}
    names = {key.removeprefix("grad ") for key in target if key.startswith("grad ")}
    own = {key for key, _ in module.named_parameters()}
    assert own <= names | {"decoder.px_dropout_decoder_gene"}
    assert all(key.startswith(tuple(unused)) for key in names - own)
    with torch.no_grad():
        latent = module.encode(batch)
        decoded: Any = module.decode(latent, batch)
    genes, proteins = decoded["rna"], decoded["protein"]
    found = {
        "mean": latent.posterior.loc,
        "variance": latent.posterior.scale.square(),
        "scale": genes.get_normalized("scale"),
        "rate": genes.get_normalized("mu"),
        # Rates of the likelihood, with the capture efficiency that read-outs of scvi-tools leave
        # out.
        "background": proteins.mu1,
        "foreground": proteins.mu2,
        "mixing": proteins.mixture_logits,
    }
    for key, value in found.items():
        torch.testing.assert_close(value, target[key], rtol=1e-5, atol=1e-5, msg=f"{name} {key}")
    torch.testing.assert_close(
        module.decode_scale(latent, batch), target["scale"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_parts_of_the_loss_and_gradients_are_those_of_scvi_tools(
    name: str, path: str, step: list[int]
) -> None:
    module, batch, target = new_module(name), new_batch(name), theirs(name)
    if path == "sparse":
        if not module.accepts_sparse:
            pytest.skip("counts must be dense here")
        batch = batch._replace(counts=to_sparse(batch.counts))
    loss = module.loss(batch, torch.tensor(0.6))
    assert (*loss.reconstruction, *loss.kl_local) == module.loss_parts
    parts = {**loss.reconstruction, **loss.kl_local}
    for ours, key in LOSS_PARTS.items():
        torch.testing.assert_close(parts[ours], target[key], **CLOSE)
    torch.testing.assert_close(loss.loss, target["loss"], **CLOSE)
    loss.loss.backward()
    for key, weight in module.named_parameters():
        torch.testing.assert_close(weight.grad, target[f"grad {key}"], **CLOSE)


@pytest.mark.trains
@pytest.mark.parametrize("name", cases.RUNS)
def test_twenty_steps_reach_the_weights_of_scvi_tools(
    name: str, path: str, step: list[int]
) -> None:
    module, batch, target = new_module(name), new_batch(name), theirs(name)
    if path == "sparse":
        batch = batch._replace(counts=to_sparse(batch.counts))
    optimizer = torch.optim.Adam(module.parameters(), lr=cases.LEARNING_RATE, eps=0.01)
    for i in range(cases.N_STEPS):
        step[0] = i
        optimizer.zero_grad()
        module.loss(batch, torch.tensor(0.6)).loss.backward()
        optimizer.step()
    for key, weight in module.named_parameters():
        torch.testing.assert_close(weight, target[f"trained {key}"], rtol=1e-3, atol=1e-3)

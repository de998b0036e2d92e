"""MultiVI's network beside scvi-tools' numbers for the same weights, cells and noise."""

from __future__ import annotations

import functools
import json
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from cellvae import settings
from cellvae.core.csr_batch import CSRBatch
from cellvae.model.networks.multivi_module import MULTIVIBatch, MULTIVIModule
from cellvae.model.networks.multivi_network import MULTIVIConfig, MULTIVISizes

N_CELLS, N_GENES, N_REGIONS, N_PROTEINS, N_STEPS = 24, 9, 11, 5, 20
ALL = {"n_genes": N_GENES, "n_regions": N_REGIONS, "n_proteins": N_PROTEINS}
COVARIATES = {"n_continuous": 1, "n_cats_per_cov": (2,)}
# Sizes and options of the cases of `write_multivi.py`.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": (ALL, {}),
    "mmd": (ALL, {"modality_penalty": "MMD", "modality_weights": "universal"}),
    "jeffreys-cell": (ALL, {"modality_weights": "cell"}),
    "no-penalty": (ALL, {"modality_penalty": "None", "modality_weights": "cell"}),
    "without-proteins": ({**ALL, "n_proteins": 0}, {"gene_likelihood": "nb"}),
    "genes": ({"n_genes": N_GENES}, {}),
    "regions": ({"n_regions": N_REGIONS}, {}),
    "genes-proteins": ({**ALL, "n_regions": 0}, {"gene_likelihood": "poisson"}),
    "covariates": ({**ALL, **COVARIATES}, {}),
    "encoded": ({**ALL, **COVARIATES}, {"encode_covariates": True}),
    "deep": (
        {**ALL, **COVARIATES},
        {
            "encode_covariates": True,
            "deeply_inject_covariates": True,
            "n_layers_encoder": 1,
            "n_layers_decoder": 3,
        },
    ),
    "normalised": (
        ALL,
        {"use_batch_norm": "both", "use_layer_norm": "none", "region_factors": False},
    ),
    "logistic": (ALL, {"latent_distribution": "ln", "use_layer_norm": "decoder"}),
    "size-factors": ({**ALL, "size_factor": True, "region_size_factor": True}, {}),
    "protein-batch": (ALL, {"protein_dispersion": "protein-batch"}),
}


@functools.cache
def pinned() -> dict[str, Any]:
    """Inputs, and the arrays of each case by its name."""
    with np.load(Path(__file__).with_name("multivi.npz")) as arrays:
        return dict(arrays)


class Case:
    """One network of scvi-tools and what it said."""

    def __init__(self, name: str) -> None:
        self.name = name
        sizes, options = CASES[name]
        self.sizes = MULTIVISizes(n_cells=N_CELLS, n_batch=3, **sizes)
        self.config = MULTIVIConfig(n_hidden=6, n_latent=3, dropout_rate=0.0, **options)

    def value(self, key: str) -> Tensor:
        """An array of the case."""
        return torch.from_numpy(pinned()[f"{self.name} {key}"])

    def unpack(self, kind: str) -> dict[str, Tensor]:
        """Tensors that lie one after the other in a vector, by name."""
        shapes = json.loads(str(pinned()[f"{self.name} {kind} shapes"]))
        pieces = self.value(kind).split([prod(shape) for shape in shapes.values()])
        return {
            name: piece.reshape(shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }

    def module(self) -> MULTIVIModule:
        """Our network with their weights, and with their noise in place of random numbers."""
        module = MULTIVIModule(self.sizes, self.config)
        theirs, ours = self.unpack("weights"), module.state_dict()
        module.load_state_dict({name: theirs[name].to(ours[name].dtype) for name in ours})
        encode = module.encode

        def encode_with_noise(batch: MULTIVIBatch) -> Any:
            latent, cells = encode(batch), batch.cell_index[:, 0]
            noise_z, noise = (
                torch.from_numpy(pinned()[k])[cells] for k in ("noise_z", "noise_proteins")
            )
            posterior = latent.posterior
            return latent._replace(
                sample=module.transform(posterior.loc + posterior.scale * noise_z),
                background_noise=None if latent.background_noise is None else noise,
            )

        module.encode = encode_with_noise
        return module

    def cells(self) -> Tensor:
        """Numbers of the cells in which a modality of the case was measured."""
        names = {"rna": "genes", "accessibility": "regions", "protein": "proteins"}
        values = [torch.from_numpy(pinned()[names[name]]) for name in self.sizes.outputs]
        return torch.cat(values, dim=1).sum(dim=1).nonzero()[:, 0]

    def batch(self, cells: Tensor | None = None) -> MULTIVIBatch:
        """Cells with these numbers; those of :meth:`cells` if none are given."""
        cells = self.cells() if cells is None else cells
        names = ("genes", "regions", "proteins", "batch", "codes", "continuous", "size_factor")
        inputs = {name: torch.from_numpy(pinned()[name])[cells] for name in names}
        sizes = self.sizes
        return MULTIVIBatch(
            batch=inputs["batch"],
            labels=torch.zeros_like(inputs["batch"]),
            counts=inputs["genes"] if sizes.n_genes else None,
            regions=inputs["regions"] if sizes.n_regions else None,
            proteins=inputs["proteins"] if sizes.n_proteins else None,
            size_factor=inputs["size_factor"][:, :1] if sizes.size_factor else None,
            region_size_factor=inputs["size_factor"][:, 1:] if sizes.region_size_factor else None,
            categorical=inputs["codes"] if sizes.n_cats_per_cov else None,
            continuous=inputs["continuous"] if sizes.n_continuous else None,
            cell_index=cells[:, None],
        )


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_posteriors_sizes_and_means_are_those_of_scvi_tools(case: Case) -> None:
    module, batch = case.module(), case.batch()
    with torch.no_grad():
        latent = module.train().encode(batch)
        decoded = module.decode(latent, batch)
    ours = {"qz_m": latent.posterior.loc, "qz_v": latent.posterior.variance}
    if latent.rna is not None:
        ours |= {"qzm_expr": latent.rna.loc, "libsize_expr": latent.log_library}
        ours["px_rate"] = decoded["rna"].get_normalized("mu")
    if latent.accessibility is not None:
        ours |= {"qzm_acc": latent.accessibility.loc, "libsize_acc": latent.log_depth.exp()}
        ours["p"] = decoded["accessibility"].get_normalized("scale")
    if latent.protein is not None:
        ours["qzm_pro"] = latent.protein.loc
    if case.config.gene_likelihood == "zinb" and latent.rna is not None:
        ours["px_rate"] = decoded["rna"].mu
    for key, value in ours.items():
        torch.testing.assert_close(
            value, case.value(key), rtol=1e-5, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_parts_of_the_loss_and_gradients_are_those_of_scvi_tools(
    case: Case, kernels: Literal["torch", "compiled"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "kernels", kernels)
    module, batch = case.module().train(), case.batch()
    loss = module.loss(batch, torch.tensor(1.0))
    loss.loss.backward()
    parts = {**loss.reconstruction, **loss.kl_local}
    assert len(loss.reconstruction) == len(case.sizes.outputs)
    for name, part in parts.items():
        torch.testing.assert_close(
            part, case.value(f"part {name}"), rtol=1e-4, atol=1e-4, msg=lambda m, n=name: n + m
        )
    torch.testing.assert_close(loss.loss, case.value("loss"), rtol=1e-4, atol=1e-4)
    theirs = case.unpack("grads")
    for name, parameter in module.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(
            found,
            theirs.pop(name, torch.zeros_like(parameter)),
            rtol=1e-4,
            atol=1e-4,
            msg=lambda m, n=name: f"{n}: {m}",
        )
    # The weights of a mixture are not quite zero there for modalities that were not measured.
    assert all(grad.abs().max() < 1e-12 for grad in theirs.values())


def test_sparse_genes_and_regions_give_the_same_loss_and_gradients(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = case.module().train()
    if not module.accepts_sparse:
        pytest.skip("the encoders read covariates")
    batch = case.batch()
    module.loss(batch, torch.tensor(1.0)).loss.backward()
    dense = {name: p.grad for name, p in module.named_parameters()}
    module.zero_grad()
    sparse = {
        field: to_csr(getattr(batch, field))
        for field in module.sparse_fields
        if getattr(batch, field) is not None
    }
    monkeypatch.setattr(settings, "kernels", "compiled")
    loss = module.loss(batch._replace(**sparse), torch.tensor(1.0))
    loss.loss.backward()
    torch.testing.assert_close(loss.loss, case.value("loss"), rtol=1e-4, atol=1e-4)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, dense[name], rtol=1e-4, atol=1e-4)


def to_csr(values: Tensor) -> CSRBatch:
    """Values in CSR layout."""
    matrix = csr_matrix(values.numpy())
    return CSRBatch.from_numpy(matrix.data, matrix.indices, matrix.indptr, values.shape[1])


@pytest.mark.trains
def test_weights_after_twenty_steps_are_those_of_scvi_tools(case: Case) -> None:
    module = case.module().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-3, eps=1e-8)
    module.loss(case.batch(), torch.tensor(1.0))  # as there, in training mode
    for step in range(N_STEPS):
        batch = case.batch(case.cells()[step % 2 :: 2])
        loss = module.loss(batch, torch.tensor(step / N_STEPS)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    theirs, weights = case.unpack("trained"), module.state_dict()
    means = [name for name in weights if name.endswith(".1.running_mean")]
    # Batch normalisation takes out the bias before it: its gradient is a rounding error.
    without_effect = {*means, *(name.replace(".1.running_mean", ".0.bias") for name in means)}
    for name, tensor in weights.items():
        if name in without_effect:
            continue
        torch.testing.assert_close(
            tensor.float(), theirs[name], rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_our_networks_are_those_that_scvi_tools_trains(case: Case) -> None:
    """What we leave out has no effect on the loss there: it has no gradient."""
    grads = case.unpack("grads")
    left_out = set(case.unpack("weights")) - set(case.module().state_dict())
    assert all(grads[name].abs().max() < 1e-12 for name in left_out & set(grads))

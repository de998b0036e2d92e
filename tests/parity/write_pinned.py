"""Numbers of scvi-tools, written to `pinned/` for the tests of parity.

Run by hand, in an environment with scvi-tools==1.4.2, when a case is added:

    python tests/parity/write_pinned.py

Small networks of every kind get the same weights, cells and noise; what they say of the cells,
their gradients, and twenty steps of training are stored. A weight is found in `weights.npz` by
name and shape. Vectors hold tensors one after the other, in the order of the names in `about`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scvi
import torch
from cases import (
    CASES,
    N_CELLS,
    N_GENES,
    N_HIDDEN,
    N_LATENT,
    RUNS,
    Case,
    new_inputs,
    new_weight,
)
from scvi.module import VAE
from scvi.train import TrainingPlan
from scvi.train._trainingplans import _compute_kl_weight
from torch import Tensor
from torch.distributions import Normal

FOLDER = Path(__file__).parent / "pinned"
KL_WEIGHT = 0.7
N_STEPS, CELLS_PER_STEP = 20, 12


def library_prior(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mean and variance of log sizes by batch, as scvi-tools takes them from the cells."""
    adata = anndata.AnnData(inputs["counts"])
    adata.obs["batch"] = inputs["batch"][:, 0]
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    module = scvi.model.SCVI(adata, use_observed_lib_size=False).module
    names = ("library_log_means", "library_log_vars")
    return {name: getattr(module, name).numpy() for name in names}


class Weights:
    """Table of weights by name and shape, which the networks of all cases share."""

    def __init__(self, prior: Mapping[str, np.ndarray], rng: np.random.Generator) -> None:
        self.prior = prior
        self.rng = rng
        self.table: dict[str, np.ndarray] = {}

    def give_to(self, module: VAE) -> None:
        state = module.state_dict()
        for name, tensor in state.items():
            if not name.endswith("num_batches_tracked"):
                tensor.copy_(torch.from_numpy(self.of(name, tuple(tensor.shape))))
        module.load_state_dict(state)

    def of(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        key = f"{name} {list(shape)}"
        if key not in self.table:
            value = self.prior.get(name)
            value = new_weight(name, shape, self.rng) if value is None else value
            self.table[key] = value.astype(np.float32)
        return self.table[key]


def build(case: Case, weights: Weights, dropout_rate: float) -> VAE:
    config = dict(case.config)
    if "var_activation" in config:
        config["var_activation"] = getattr(torch.nn.functional, config["var_activation"])
    latent = not config.get("use_observed_lib_size", True)
    module = VAE(
        N_GENES,
        n_batch=case.n_batch,
        n_labels=case.n_labels,
        n_hidden=N_HIDDEN,
        n_latent=N_LATENT,
        n_continuous_cov=case.n_continuous,
        n_cats_per_cov=list(case.n_cats_per_cov) or None,
        dropout_rate=dropout_rate,
        use_size_factor_key=case.size_factor,
        library_log_means=weights.prior["library_log_means"] if latent else None,
        library_log_vars=weights.prior["library_log_vars"] if latent else None,
        **config,
    )
    weights.give_to(module)
    return module


def tensors_of(
    case: Case, inputs: Mapping[str, np.ndarray], cells: np.ndarray
) -> dict[str, Tensor]:
    """Cells of a case; codes of a category are those of the inputs, up to its number of values."""
    keys = scvi.REGISTRY_KEYS
    taken = {name: torch.from_numpy(values[cells]) for name, values in inputs.items()}
    tensors = {
        keys.X_KEY: taken["counts"],
        keys.BATCH_KEY: taken["batch"] % case.n_batch,
        keys.LABELS_KEY: taken["labels"] % case.n_labels,
    }
    if case.size_factor:
        tensors[keys.SIZE_FACTOR_KEY] = taken["size_factor"]
    if case.n_cats_per_cov:
        codes = [taken["codes"] % n for n in case.n_cats_per_cov]
        tensors[keys.CAT_COVS_KEY] = torch.cat(codes, dim=1)
    if case.n_continuous:
        tensors[keys.CONT_COVS_KEY] = taken["continuous"]
    return tensors


@contextmanager
def given_noise(z: np.ndarray, library: np.ndarray) -> Iterator[None]:
    """Draws of normal posteriors made from this noise, told apart by their width."""
    noise = {n.shape[-1]: torch.from_numpy(n) for n in (z, library)}
    kept: Callable[..., Tensor] = Normal.rsample
    Normal.rsample = lambda self: self.loc + self.scale * noise[self.loc.shape[-1]]
    try:
        yield
    finally:
        Normal.rsample = kept


def forward(module: VAE, tensors: dict[str, Tensor], kl_weight: float) -> tuple[Any, Any, Any]:
    return module(tensors, loss_kwargs={"kl_weight": kl_weight})


def evaluated(module: VAE, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a network in evaluation mode says of the cells."""
    module.eval()
    with torch.no_grad():
        inference, generative, losses = forward(module, tensors, KL_WEIGHT)
    values = {
        "mean": inference["qz"].loc,
        "variance": inference["qz"].scale.square(),
        "z": inference["z"],
        "library": inference["library"],
        "scale": generative["px"].get_normalized("scale"),
        "rate": generative["px"].get_normalized("mu"),
        "reconstruction": losses.reconstruction_loss["reconstruction_loss"],
        "kl_z": losses.kl_local["kl_divergence_z"],
        "kl_library": losses.kl_local["kl_divergence_l"],
        "loss": losses.loss,
    }
    if inference["ql"] is not None:
        values["library_mean"] = inference["ql"].loc
        values["library_variance"] = inference["ql"].scale.square()
    return values


def packed(tensors: list[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0), *(tensor.detach().flatten() for tensor in tensors)])


def floating_state(module: VAE) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict().items() if v.is_floating_point()}


def description(module: VAE, case: Case) -> dict[str, Any]:
    """Case and its tensors, in the order of the packed vectors."""
    sizes = {"n_genes": N_GENES, **asdict(case)}
    config = {"n_hidden": N_HIDDEN, "n_latent": N_LATENT, **sizes.pop("config")}
    return {
        "config": config,
        "n_cells": sizes.pop("n_cells"),
        "sizes": sizes,
        "shapes": {name: list(t.shape) for name, t in floating_state(module).items()},
        "parameters": [name for name, _ in module.named_parameters()],
        "trained": [name for name, p in module.named_parameters() if p.grad is not None],
        "running": [name for name, _ in module.named_buffers() if "running" in name],
    }


def write(name: str, about: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    arrays = {key: np.asarray(value) for key, value in values.items()}
    np.savez_compressed(FOLDER / f"{name}.npz", about=json.dumps(about), **arrays)


def write_case(name: str, case: Case, weights: Weights, inputs: dict[str, np.ndarray]) -> None:
    """Values in evaluation mode; loss, gradients and running statistics in training mode."""
    tensors = tensors_of(case, inputs, np.arange(case.n_cells))
    noise = (inputs[key][: case.n_cells] for key in ("noise_z", "noise_library"))
    with given_noise(*noise):
        values = evaluated(build(case, weights, dropout_rate=0.1), tensors)
        module = build(case, weights, dropout_rate=0.0).train()
        _, _, losses = forward(module, tensors, KL_WEIGHT)
    losses.loss.backward()
    about = {**description(module, case), "kl_weight": KL_WEIGHT}
    buffers = dict(module.named_buffers())
    values["training_loss"] = losses.loss.detach()
    values["gradients"] = packed([p.grad for p in module.parameters() if p.grad is not None])
    values["running"] = packed([buffers[buffer] for buffer in about["running"]])
    write(f"case-{name}", about, values)


def write_run(name: str, case: Case, weights: Weights, inputs: dict[str, np.ndarray]) -> None:
    """Losses of twenty steps with the optimizer of scvi-tools, and the weights they end with."""
    rng = np.random.default_rng(1)
    module = build(case, weights, dropout_rate=0.0).train()
    plan = TrainingPlan(module, n_epochs_kl_warmup=None, n_steps_kl_warmup=N_STEPS)
    optimizer = plan.configure_optimizers()["optimizer"]
    draw = rng.standard_normal
    cells = np.stack([rng.permutation(N_CELLS)[:CELLS_PER_STEP] for _ in range(N_STEPS)])
    noise_z = draw((N_STEPS, CELLS_PER_STEP, N_LATENT), dtype=np.float32)
    noise_library = draw((N_STEPS, CELLS_PER_STEP, 1), dtype=np.float32)
    kl_weights = [_compute_kl_weight(0, step, None, N_STEPS) for step in range(N_STEPS)]
    losses = []
    for step in range(N_STEPS):
        tensors = tensors_of(case, inputs, cells[step])
        with given_noise(noise_z[step], noise_library[step]):
            loss = forward(module, tensors, kl_weights[step])[2].loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    values = {
        "cells": cells,
        "noise_z": noise_z,
        "noise_library": noise_library,
        "kl_weights": np.array(kl_weights),
        "losses": torch.stack(losses),
        "state": packed(list(floating_state(module).values())),
    }
    options = ("lr", "betas", "eps", "weight_decay", "amsgrad")
    chosen = {option: optimizer.defaults[option] for option in options}
    about = {**description(module, case), "optimizer": [type(optimizer).__name__, chosen]}
    write(f"run-{name}", about, values)


def main() -> None:
    if scvi.__version__ != "1.4.2":
        raise SystemExit(f"Expected scvi-tools 1.4.2; got {scvi.__version__}.")
    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    rng = np.random.default_rng(0)
    inputs = new_inputs(rng)
    weights = Weights(library_prior(inputs), rng)
    for name, case in CASES.items():
        write_case(name, case, weights, inputs)
    for name, case in RUNS.items():
        write_run(name, case, weights, inputs)
    np.savez_compressed(FOLDER / "inputs.npz", **inputs)
    values = np.concatenate([value.ravel() for value in weights.table.values()])
    write("weights", {key: value.size for key, value in weights.table.items()}, {"values": values})


if __name__ == "__main__":
    main()

"""Numbers of scvi-tools' MULTIVAE, written to `multivi.npz`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/parity/write_multivi.py`. With
scvi-tools==1.5.1 and `--check`, the numbers are compared with those of the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scvi.module import MULTIVAE
from torch.distributions import Normal

FILE = Path(__file__).with_name("multivi.npz")
N_CELLS, N_GENES, N_REGIONS, N_PROTEINS, N_LATENT, N_STEPS = 24, 9, 11, 5, 3, 20
# Modalities of each cell: all three, or some of them.
MEASURED = {
    "genes": [*range(14), 20, 21],
    "regions": [*range(8), *range(14, 20), 22, 23],
    "proteins": [*range(5), 20, 21, 22, 23],
}
COVARIATES = {"n_continuous_cov": 1, "n_cats_per_cov": [2]}
ALL = {"n_input_genes": N_GENES, "n_input_regions": N_REGIONS, "n_input_proteins": N_PROTEINS}
CASES: dict[str, dict[str, Any]] = {
    "default": ALL,
    "mmd": {**ALL, "modality_penalty": "MMD", "modality_weights": "universal"},
    "jeffreys-cell": {**ALL, "modality_weights": "cell"},
    "no-penalty": {**ALL, "modality_penalty": "None", "modality_weights": "cell"},
    "without-proteins": {**ALL, "n_input_proteins": 0, "gene_likelihood": "nb"},
    "genes": {"n_input_genes": N_GENES},
    "regions": {"n_input_regions": N_REGIONS},
    "genes-proteins": {**ALL, "n_input_regions": 0, "gene_likelihood": "poisson"},
    "covariates": {**ALL, **COVARIATES},
    "encoded": {**ALL, **COVARIATES, "encode_covariates": True},
    "deep": {
        **ALL,
        **COVARIATES,
        "encode_covariates": True,
        "deeply_inject_covariates": True,
        "n_layers_encoder": 1,
        "n_layers_decoder": 3,
    },
    "normalised": {
        **ALL,
        "use_batch_norm": "both",
        "use_layer_norm": "none",
        "region_factors": False,
    },
    "logistic": {**ALL, "latent_distribution": "ln", "use_layer_norm": "decoder"},
    "size-factors": {**ALL, "use_size_factor_key": True},
    "protein-batch": {**ALL, "protein_dispersion": "protein-batch"},
}


def make_inputs() -> dict[str, torch.Tensor]:
    """Cells, covariates and noise, the same for all cases."""
    inputs = {
        "genes": torch.poisson(torch.full((N_CELLS, N_GENES), 2.0)),
        "regions": (torch.rand(N_CELLS, N_REGIONS) < 0.4).float() * 2,
        "proteins": torch.poisson(torch.full((N_CELLS, N_PROTEINS), 9.0)),
    }
    for name, cells in MEASURED.items():
        absent = torch.ones(N_CELLS, dtype=torch.bool)
        absent[cells] = False
        inputs[name][absent] = 0
    return inputs | {
        "batch": (torch.arange(N_CELLS) % 3)[:, None],
        "codes": (torch.arange(N_CELLS) % 2)[:, None],
        "continuous": torch.randn(N_CELLS, 1),
        "size_factor": torch.rand(N_CELLS, 2) * 0.5 + 0.2,
        "noise_z": torch.randn(N_CELLS, N_LATENT),
        "noise_proteins": torch.randn(N_CELLS, N_PROTEINS),
    }


class FixedNoise:
    """Noise that normal distributions of these cells draw, by their width."""

    def __init__(self, inputs: dict[str, torch.Tensor]) -> None:
        self.noise = {n.shape[1]: n for n in (inputs["noise_z"], inputs["noise_proteins"])}
        self.cells = torch.arange(N_CELLS)

    def rsample(self, normal: Normal, shape: tuple[int, ...] = ()) -> torch.Tensor:
        width = normal.loc.shape[-1]
        # Without proteins, the decoder of proteins has an output of width 0.
        noise = self.noise[width][self.cells] if width else torch.zeros_like(normal.loc)
        return normal.loc + normal.scale * noise


def tensors_of(inputs: dict[str, torch.Tensor], case: dict[str, Any], cells: Any) -> dict:
    """Tensors as scvi-tools' data loader gives them."""
    tensors = {
        "batch": inputs["batch"],
        "labels": torch.zeros_like(inputs["batch"]),
        "ind_x": torch.arange(N_CELLS)[:, None],
    }
    if "n_input_genes" in case:
        tensors["X"] = inputs["genes"]
    if case.get("n_input_regions"):
        tensors["atac"] = inputs["regions"]
    if case.get("n_input_proteins"):
        tensors["proteins"] = inputs["proteins"]
    if "n_continuous_cov" in case:
        tensors["extra_categorical_covs"] = inputs["codes"]
        tensors["extra_continuous_covs"] = inputs["continuous"]
    if "use_size_factor_key" in case:
        tensors["size_factor"] = inputs["size_factor"]
    return {name: tensor[cells] for name, tensor in tensors.items()}


def measured_cells(case: dict[str, Any]) -> torch.Tensor:
    """Cells in which a modality of the case was measured."""
    cells = {
        cell
        for name, of_name in MEASURED.items()
        if case.get(f"n_input_{name}")
        for cell in of_name
    }
    return torch.tensor(sorted(cells))


def run_case(name: str, inputs: dict[str, torch.Tensor], noise: FixedNoise) -> dict[str, Any]:
    """Weights, outputs, gradients and the weights after training of one case."""
    case = {"n_cats_per_cov": [], **CASES[name]}
    torch.manual_seed(1)
    module = MULTIVAE(n_batch=3, n_obs=N_CELLS, n_hidden=6, n_latent=N_LATENT, **case).train()
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        # Where foreground and background are the same, gradients of their odds are rounding errors,
        # which Adam makes steps of full length.
        module.z_decoder_pro.py_fore_scale_decoder.fc_layers[0][0].bias += 3
    weights = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    noise.cells = cells = measured_cells(case)
    inference, generative, losses = module(tensors_of(inputs, case, cells))
    losses.loss.backward()
    result = {
        key: inference[key]
        for key in ("qz_m", "qz_v", "qzm_expr", "qzm_acc", "qzm_pro", "libsize_expr", "libsize_acc")
    }
    result |= {"px_rate": generative["px_rate"], "p": generative["p"]}
    result["loss"] = losses.loss
    for part, values in {**losses.reconstruction_loss, **losses.kl_local}.items():
        result[f"part {part}"] = torch.as_tensor(values) * torch.ones(len(cells))
    parameters = dict(module.named_parameters())
    # Versions differ in whether idle networks have a gradient of zeros or none.
    grads = {n: p.grad for n, p in parameters.items() if p.grad is not None and p.grad.any()}
    grads = {name: grad.clone() for name, grad in grads.items()}
    train(module, inputs, case, noise)
    tensors = {"weights": weights, "grads": grads, "trained": module.state_dict()}
    for kind, of_kind in tensors.items():
        shapes = {name: list(tensor.shape) for name, tensor in of_kind.items()}
        result[f"{kind} shapes"] = np.array(json.dumps(shapes))
        result[kind] = torch.cat([tensor.float().flatten() for tensor in of_kind.values()])
    return result


def train(module: Any, inputs: dict[str, torch.Tensor], case: dict, noise: FixedNoise) -> None:
    """Train for some steps, on the odd and even cells in turn."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-3, eps=1e-8)
    for step in range(N_STEPS):
        noise.cells = measured_cells(case)[step % 2 :: 2]
        tensors = tensors_of(inputs, case, noise.cells)
        losses = module(tensors, loss_kwargs={"kl_weight": step / N_STEPS})[2]
        optimizer.zero_grad()
        losses.loss.backward()
        optimizer.step()


def main() -> None:
    torch.manual_seed(0)
    inputs = make_inputs()
    values = dict(inputs)
    noise = FixedNoise(inputs)
    Normal.rsample = lambda self, shape=(): noise.rsample(self, shape)  # type: ignore[method-assign]
    for name in CASES:
        of_case = run_case(name, inputs, noise)
        values |= {f"{name} {key}": tensor for key, tensor in of_case.items()}
    arrays = {
        name: value.detach().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }
    if "--check" in sys.argv:
        with np.load(FILE) as saved:
            numbers = [key for key in arrays if arrays[key].dtype.kind != "U"]
            assert set(saved) == set(arrays)
            gaps = {key: np.abs(saved[key] - arrays[key]).max(initial=0) for key in numbers}
        print("largest difference:", max(gaps.items(), key=lambda item: item[1]))
        return
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()

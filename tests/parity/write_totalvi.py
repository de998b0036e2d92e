"""Numbers of scvi-tools' TOTALVAE, written to `totalvi.npz`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/parity/write_totalvi.py`. The
numbers of 1.5.1 are the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import totalvi_cases as cases
from scvi.module import TOTALVAE
from torch.distributions import Normal

STEP = [0]


def rsample(self: Normal, sample_shape: Any = ()) -> torch.Tensor:
    """Sample with the noise of the step."""
    return self.loc + self.scale * torch.from_numpy(cases.new_noise(self.loc.shape, STEP[0]))


def new_module(name: str) -> TOTALVAE:
    """Network of a case, with its weights."""
    covariates = name in cases.WITH_COVARIATES
    measured = cases.MEASURED.get(name)
    module = TOTALVAE(
        cases.N_GENES,
        cases.N_PROTEINS,
        n_batch=cases.N_BATCH,
        n_labels=cases.N_LABELS,
        n_hidden=cases.N_HIDDEN,
        n_latent=cases.N_LATENT,
        n_cats_per_cov=cases.N_CATS_PER_COV if covariates else None,
        n_continuous_cov=cases.N_CONTINUOUS if covariates else 0,
        dropout_rate_encoder=0.0,
        dropout_rate_decoder=0.0,
        n_panel=2 if name == "panels" else cases.N_BATCH,
        panel_key="panel" if name == "panels" else "batch",
        protein_batch_mask=measured and {str(i): np.array(m) for i, m in enumerate(measured)},
        use_size_factor_key=name in cases.WITH_SIZE_FACTOR,
        library_log_means=np.zeros((1, cases.N_BATCH)),
        library_log_vars=np.ones((1, cases.N_BATCH)),
        **cases.CONFIGS[name],
    )
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(cases.new_weight(key, tuple(tensor.shape))))
    return module


def new_tensors(name: str) -> dict[str, torch.Tensor]:
    """Cells of a case, under the keys of scvi-tools."""
    x = {key: torch.from_numpy(value) for key, value in cases.new_inputs().items()}
    tensors = {key: x[key] for key in ("proteins", "batch", "labels", "panel")}
    tensors["X"] = x["counts"]
    if name in cases.WITH_COVARIATES:
        tensors |= {"extra_categorical_covs": x["categorical"]}
        tensors |= {"extra_continuous_covs": x["continuous"]}
    if name in cases.WITH_SIZE_FACTOR:
        tensors["size_factor"] = x["size_factor"]
    return tensors


def run(module: TOTALVAE, tensors: dict[str, torch.Tensor]) -> tuple[Any, Any, Any]:
    """Latent, parameters and loss; with labels, which its own calls forget."""
    return module(
        tensors, inference_kwargs={"label": tensors["labels"]}, loss_kwargs={"kl_weight": 0.6}
    )


def numbers(name: str) -> dict[str, torch.Tensor]:
    """Posterior, parameters, parts of the loss, gradients, and weights after training steps."""
    STEP[0] = 0
    module, tensors = new_module(name), new_tensors(name)
    inference, generative, losses = run(module, tensors)
    qz, px, py = inference["qz"], generative["px_"], generative["py_norm_"]
    losses.loss.backward()
    values = {
        "mean": qz.loc,
        "variance": qz.scale.square(),
        "scale": px["scale"],
        "rate": px["rate"],
        "background": py["rate_back"],
        "foreground": py["rate_fore"],
        "mixing": py["mixing"],
        "loss": losses.loss,
        **losses.reconstruction_loss,
        **losses.kl_local,
    }
    for key, weight in module.named_parameters():
        if weight.grad is not None:
            values[f"grad {key}"] = weight.grad
    if name in cases.RUNS:
        module = new_module(name)
        optimizer = torch.optim.Adam(module.parameters(), lr=cases.LEARNING_RATE, eps=0.01)
        for step in range(cases.N_STEPS):
            STEP[0] = step
            optimizer.zero_grad()
            run(module, tensors)[2].loss.backward()
            optimizer.step()
        values |= {f"trained {key}": weight for key, weight in module.named_parameters()}
    return values


def main() -> None:
    Normal.rsample = rsample
    values = {
        f"{name}: {key}": value.detach().numpy()
        for name in cases.CONFIGS
        for key, value in numbers(name).items()
    }
    given = sys.argv[1:]
    path = Path(given[0]) if given else Path(__file__).with_name("totalvi.npz")
    np.savez_compressed(path, **values)


if __name__ == "__main__":
    main()

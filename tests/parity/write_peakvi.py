"""Numbers of scvi-tools' PEAKVAE, written to `peakvi.npz`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/parity/write_peakvi.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scvi.module import PEAKVAE

CASES: dict[str, dict[str, Any]] = {
    "encoded": {"encode_covariates": True},
    "deep": {"deeply_inject_covariates": True, "n_layers_encoder": 1, "n_layers_decoder": 3},
    "bare": {
        "model_depth": False,
        "region_factors": False,
        "use_batch_norm": "both",
        "use_layer_norm": "none",
    },
    "logistic": {"latent_distribution": "ln", "use_layer_norm": "decoder"},
}


def main() -> None:
    torch.manual_seed(0)
    counts = (torch.rand(20, 30) < 0.4).float() * torch.randint(1, 4, (20, 30))
    batch, codes = (torch.arange(20) % 3)[:, None], (torch.arange(20) % 2)[:, None]
    continuous = torch.randn(20, 1)
    values = {"counts": counts, "batch": batch, "codes": codes, "continuous": continuous}
    for name, config in CASES.items():
        sizes = {"n_hidden": 8, "n_latent": 3, "n_continuous_cov": 1, "n_cats_per_cov": [2]}
        module = PEAKVAE(30, n_batch=3, **sizes, **config).eval()
        tensors = {"X": counts, "batch": batch}
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            inference = module.inference(counts, batch, continuous, codes)
            qz = inference["qz"]
            inference["z"] = qz.loc
            generative = module.generative(qz.loc, qz.loc, batch, continuous, codes)
            losses = module.loss(tensors, inference, generative)
        of_case = {
            "mean": qz.loc,
            "scale": qz.scale,
            "depth": torch.as_tensor(inference["d"], dtype=torch.float32),
            "accessibility": generative["px"],
            "reconstruction": next(iter(losses.reconstruction_loss.values())),
            "kl": next(iter(losses.kl_local.values())),
            **{f"weight {key}": tensor for key, tensor in module.state_dict().items()},
        }
        values |= {f"{name} {key}": tensor for key, tensor in of_case.items()}
    arrays = {name: tensor.numpy() for name, tensor in values.items()}
    np.savez_compressed(Path(__file__).with_name("peakvi.npz"), **arrays)


if __name__ == "__main__":
    main()

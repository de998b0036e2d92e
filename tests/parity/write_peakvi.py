"""Numbers of scvi-tools' PEAKVAE, written to `peakvi.npz`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/parity/write_peakvi.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scvi.module import PEAKVAE


def main() -> None:
    torch.manual_seed(0)
    counts = (torch.rand(20, 30) < 0.4).float() * torch.randint(1, 4, (20, 30))
    batch, codes = (torch.arange(20) % 3)[:, None], (torch.arange(20) % 2)[:, None]
    continuous = torch.randn(20, 1)
    sizes = {"n_hidden": 8, "n_latent": 3, "n_continuous_cov": 1, "n_cats_per_cov": [2]}
    module = PEAKVAE(30, n_batch=3, encode_covariates=True, **sizes).eval()
    tensors = {"X": counts, "batch": batch}
    with torch.no_grad():
        module.region_factors.normal_()
        inference = module.inference(counts, batch, continuous, codes)
        qz = inference["qz"]
        inference["z"] = qz.loc
        generative = module.generative(qz.loc, qz.loc, batch, continuous, codes)
        losses = module.loss(tensors, inference, generative)
    values = {
        "counts": counts,
        "batch": batch,
        "codes": codes,
        "continuous": continuous,
        "mean": qz.loc,
        "scale": qz.scale,
        "depth": inference["d"],
        "accessibility": generative["px"],
        "reconstruction": next(iter(losses.reconstruction_loss.values())),
        "kl": next(iter(losses.kl_local.values())),
        **{f"weight {name}": tensor for name, tensor in module.state_dict().items()},
    }
    arrays = {name: tensor.numpy() for name, tensor in values.items()}
    np.savez_compressed(Path(__file__).with_name("peakvi.npz"), **arrays)


if __name__ == "__main__":
    main()

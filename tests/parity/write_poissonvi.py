"""Numbers of scvi-tools' POISSONVI, written to `poissonvi.npz`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/parity/write_poissonvi.py`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scvi
import torch

N_CELLS, N_REGIONS = 120, 30


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    counts = torch.poisson(2 * torch.rand(N_CELLS, N_REGIONS))
    obs = pd.DataFrame({"batch": [f"b{i % 3}" for i in range(N_CELLS)]})
    obs.index = obs.index.astype(str)
    adata = anndata.AnnData(counts.numpy(), obs=obs)
    scvi.external.POISSONVI.setup_anndata(adata, batch_key="batch")
    model = scvi.external.POISSONVI(adata, n_hidden=8, n_latent=3)
    for parameter in model.module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.is_trained_ = True
    model.module.eval()
    batch = (torch.arange(N_CELLS) % 3)[:, None]
    with torch.no_grad():
        inference = model.module.inference(counts, batch)
        inference["z"] = inference["qz"].loc
        generative = model.module.generative(inference["z"], inference["library"], batch)
        logits = model.module.decoder.px_decoder(inference["z"], batch)
        linear = model.module.decoder.px_scale_decoder[-2]
        without = torch.softmax(logits @ linear.weight.T, dim=-1)
    values = {
        "counts": counts,
        "batch": batch,
        "mean": inference["qz"].loc,
        "scale": inference["qz"].scale,
        "shares": generative["px"].scale,
        "shares without factors": without,
        "log_prob": generative["px"].log_prob(counts).sum(-1),
        "factors": torch.from_numpy(model.get_region_factors().copy()),
        **{f"weight {name}": tensor for name, tensor in model.module.state_dict().items()},
    }
    arrays = {name: tensor.detach().numpy() for name, tensor in values.items()}
    np.savez_compressed(Path(__file__).with_name("poissonvi.npz"), **arrays)


if __name__ == "__main__":
    main()

"""POISSONVI beside scvi-tools' numbers for the same weights and cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from cellvae.contracts import CountLatent
from cellvae.inference.accessibility.normalized_accessibility import ignore_region_bias
from cellvae.model import POISSONVI


def test_latent_shares_and_factors_are_those_of_scvi_tools() -> None:
    with np.load(Path(__file__).with_name("poissonvi.npz")) as arrays:
        theirs = {name: torch.from_numpy(arrays[name]) for name in arrays}
    names = [f"c{i}" for i in range(120)]
    obs = pd.DataFrame({"batch": [f"b{i % 3}" for i in range(120)]}, index=names)
    adata = AnnData(theirs["counts"].numpy(), obs=obs)
    POISSONVI.setup_anndata(adata, batch_key="batch")
    model = POISSONVI(adata, n_hidden=8, n_latent=3)
    module = model.module
    weights = {n.removeprefix("weight "): t for n, t in theirs.items() if n.startswith("weight ")}
    own = set(module.state_dict())
    assert own <= set(weights)
    module.load_state_dict({name: weights[name] for name in own})
    batch = model.rows_of_model().take(torch.arange(120))
    with torch.no_grad():
        latent = module.encode(batch)
        latent = latent._replace(sample=latent.posterior.loc)
        decoded = module.decode(latent, batch)["accessibility"]
        with ignore_region_bias(module):
            plain = module.decode(CountLatent(*latent), batch)["accessibility"].get_normalized(
                "scale"
            )
        found = {
            "mean": latent.posterior.loc,
            "scale": latent.posterior.scale,
            "shares": decoded.get_normalized("scale"),
            "shares without factors": plain,
            "log_prob": decoded.log_prob(batch.counts).sum(dim=-1),
            "factors": module.region_bias.detach(),
        }
        torch.testing.assert_close(module.decode_scale(latent, batch), plain)
        likelihood = module.log_likelihood(latent, batch)
    for name, value in found.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(likelihood, theirs["log_prob"], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(module.region_bias.detach(), theirs["factors"])

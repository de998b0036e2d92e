"""LinearSCVI with the weights of scvi-tools: the same latent, decoder and loadings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

from cellvae.model import LinearSCVI

PINNED = np.load(Path(__file__).with_name("linear.npz"))


def model_of(likelihood: str) -> Any:
    adata = AnnData(PINNED["counts"])
    adata.obs["batch"] = np.array(["a", "b", "c"])[PINNED["batch"]]
    LinearSCVI.setup_anndata(adata, batch_key="batch")
    model = LinearSCVI(adata, n_hidden=8, n_latent=4, gene_likelihood=likelihood)
    own = model.module.state_dict()
    given = {name: PINNED[f"{likelihood} weight {name}"] for name in own}
    model.module.load_state_dict({name: torch.from_numpy(v) for name, v in given.items()})
    model.is_trained = True
    return model


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_latent_and_loadings_are_those_of_scvi_tools(likelihood: str) -> None:
    model = model_of(likelihood)

    latent = model.get_latent_representation()
    np.testing.assert_allclose(latent, PINNED[f"{likelihood} latent"], rtol=1e-5, atol=1e-6)
    loadings = model.get_loadings()
    np.testing.assert_allclose(loadings, PINNED[f"{likelihood} loadings"], rtol=1e-5, atol=1e-6)
    assert list(loadings.columns) == ["Z_0", "Z_1", "Z_2", "Z_3"]
    assert list(loadings.index) == list(model.adata.var_names)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_the_decoder_says_what_that_of_scvi_tools_says(likelihood: str) -> None:
    decoder = model_of(likelihood).module.decoder
    codes = [torch.from_numpy(PINNED["batch"])[:, None]]
    with torch.no_grad():
        said = decoder(torch.from_numpy(PINNED["z"]), torch.full((24, 1), 3.0), codes)

    for name, tensor in (("scale", said.scale), ("rate", said.rate)):
        np.testing.assert_allclose(tensor, PINNED[f"{likelihood} {name}"], rtol=1e-5, atol=1e-7)
    if likelihood == "zinb":
        np.testing.assert_allclose(said.dropout, PINNED["zinb dropout"], rtol=1e-5, atol=1e-6)


def test_loadings_are_the_slope_of_the_logits() -> None:
    model = model_of("nb")
    z = torch.zeros(1, 4, requires_grad=True)

    logits = model.module.decoder.logits(z, [torch.zeros(1, 1, dtype=torch.long)]).logits
    slope = torch.autograd.functional.jacobian(
        lambda x: model.module.decoder.logits(x, [torch.zeros(1, 1, dtype=torch.long)]).logits, z
    )

    assert logits.shape == (1, 15)
    np.testing.assert_allclose(model.get_loadings(), slope[0, :, 0], rtol=1e-5, atol=1e-6)

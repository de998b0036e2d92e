"""PEAKVI beside scvi-tools' numbers for the same weights and cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch

from cellvae.distributions.detection import Detection
from cellvae.errors import InvalidOptionError
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.peakvi import PEAKVI, PEAKVIConfig, PEAKVIModule

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


@pytest.mark.parametrize("name", CASES)
def test_latent_factors_probabilities_and_losses_are_those_of_scvi_tools(name: str) -> None:
    with np.load(Path(__file__).with_name("peakvi.npz")) as arrays:
        theirs = {key: torch.from_numpy(arrays[key]) for key in arrays}
    own = {k.removeprefix(f"{name} "): v for k, v in theirs.items() if k.startswith(f"{name} ")}
    config = PEAKVIConfig(n_hidden=8, n_latent=3, **CASES[name])
    module = PEAKVIModule(30, (3, 2), 1, config).eval()
    weights = {n.removeprefix("weight "): t for n, t in own.items() if n.startswith("weight ")}
    expected = set(module.state_dict())
    assert expected <= set(weights)
    module.load_state_dict({key: weights[key] for key in expected})
    batch = CountBatch(
        counts=theirs["counts"],
        batch=theirs["batch"],
        labels=torch.zeros_like(theirs["batch"]),
        categorical=theirs["codes"],
        continuous=theirs["continuous"],
    )
    with torch.no_grad():
        latent = module.encode(batch)
        found = module.decode(latent._replace(sample=latent.posterior.loc), batch)["accessibility"]
        kl = module.loss(batch, torch.tensor(1.0)).total_kl
    for ours, key in (
        (latent.posterior.loc, "mean"),
        (latent.posterior.scale, "scale"),
        (latent.log_library.exp(), "depth"),
        (found.get_normalized("scale"), "accessibility"),
        (-found.log_prob(batch.counts).sum(dim=-1), "reconstruction"),
        (kl, "kl"),
    ):
        target = own[key].expand_as(ours) if own[key].numel() == 1 else own[key]
        torch.testing.assert_close(ours, target, rtol=1e-5, atol=1e-5, msg=lambda m, k=key: k + m)


def test_detection_is_the_closed_form_and_finite_at_the_ends() -> None:
    logits = torch.tensor([-200.0, -1.0, 2.0, 200.0], requires_grad=True)
    found = Detection(logits, torch.tensor(0.25).log())
    chance = 0.25 / (1 + np.exp([1.0, -2.0]))
    middle = slice(1, 3)
    yes, no = (found.log_prob(torch.full((4,), value)) for value in (3.0, 0.0))
    np.testing.assert_allclose(yes[middle].detach(), np.log(chance), rtol=1e-6)
    np.testing.assert_allclose(no[middle].detach(), np.log1p(-chance), rtol=1e-6)
    (yes + no).sum().backward()
    assert torch.isfinite(yes).all() and torch.isfinite(no).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.trains
def test_blood_cells_lie_beside_their_kind(shared_data: Path) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    whole = anndata.read_h5ad(shared_data / "granja_bmmc_scatac.h5ad", backed="r")
    cells = whole[np.arange(0, 14_000, 14)].to_memory()
    often = np.argsort(-np.asarray((cells.X > 0).sum(axis=0)).ravel())[:1_500]
    cells = cells[:, np.sort(often)].copy()
    PEAKVI.setup_anndata(cells, batch_key="batch")
    torch.manual_seed(0)
    model = PEAKVI(cells)
    model.train(
        max_epochs=60,
        seed=0,
        accelerator="cpu",
        enable_progress_bar=False,
        plan_kwargs={"lr": 3e-3},
    )
    latent, kinds = model.get_latent_representation(), cells.obs["cell_type"].astype(str)
    half = np.arange(len(kinds)) % 2 == 0
    nearest = KNeighborsClassifier(15).fit(latent[half], kinds[half])
    assert nearest.score(latent[~half], kinds[~half]) > 2 * kinds.value_counts(normalize=True).max()
    size = np.asarray((cells.X > 0).sum(axis=1)).ravel()
    assert np.corrcoef(model.get_depth_factors(), size)[0, 1] > 0.3
    assert model.get_region_factors().shape == (1_500,)
    with pytest.raises(InvalidOptionError, match="cannot be minified"):
        model.minify_adata()

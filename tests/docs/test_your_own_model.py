"""The models of the page about models of your own train, stop, save, load and answer."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch

import cellvae
from cellvae.data import synthetic_iid
from cellvae.errors import FileFormatError, InvalidOptionError, UnknownOptionError
from cellvae.model import MODELS, SCVI, Model, register
from cellvae.train import SaveCheckpoint

pytestmark = pytest.mark.trains

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
FILES = {"PoissonVAE": "own_torch_model.py", "Programmes": "own_pyro_model.py"}


@pytest.fixture(params=FILES)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Model of a file of the documentation, registered for one test."""
    before = dict(MODELS)
    yield runpy.run_path(str(EXAMPLES / FILES[request.param]))[request.param]
    MODELS.clear()
    MODELS.update(before)


def test_a_model_of_your_own_has_what_others_have(kind: Any, tmp_path: Path) -> None:
    adata = synthetic_iid(batch_size=100, n_genes=20, n_proteins=0, n_regions=0)
    kind.setup_anndata(adata)
    pyro.clear_param_store()
    torch.manual_seed(0)
    model = kind(adata)
    best = SaveCheckpoint(tmp_path / "best", monitor="elbo_validation", load_best_on_end=True)
    kwargs = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False, "max_epochs": 60}
    lr = {"lr": 0.01}
    model.train(**kwargs, early_stopping=True, callbacks=[best], plan_kwargs=lr)
    values = model.history["elbo_validation"].iloc[:, 0]
    assert values.min() < values.iloc[0] - 1
    assert model.training_report.best_epoch == values.idxmin()
    latent = model.get_latent_representation()
    assert latent.shape[0] == adata.n_obs and np.isfinite(latent).all()
    assert model.get_elbo() < 0
    model.save(tmp_path / "model")
    again = cellvae.load(tmp_path / "model", adata)
    assert type(again) is kind
    np.testing.assert_array_equal(again.get_latent_representation(), latent)
    assert not list(pyro.get_param_store())
    with pytest.raises(UnknownOptionError):
        kind(adata, n_latents=3)
    MODELS.pop(kind.__name__)
    with pytest.raises(FileFormatError, match=kind.__name__):
        cellvae.load(tmp_path / "model", adata)


def test_only_whole_models_with_a_name_of_their_own_are_registered() -> None:
    assert register(SCVI) is SCVI
    with pytest.raises(InvalidOptionError, match="derives from Model"):
        register(int)  # type: ignore[type-var]
    with pytest.raises(InvalidOptionError, match="to define build, fields"):
        register(type("Half", (Model,), {"Config": SCVI.Config}))
    with pytest.raises(InvalidOptionError, match="Give the class another name"):
        register(
            type(
                "SCVI",
                (Model,),
                {"Config": SCVI.Config, "fields": SCVI.fields, "build": SCVI.build},
            )
        )

"""How TOTALVI is trained where nothing is said: early stopping, its warning, the adversary."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from cellvae.data import synthetic_iid
from cellvae.errors import DataWarning, TrainingWarning
from cellvae.model import TOTALVI
from cellvae.model.networks.totalvi_module import PARTS

pytestmark = pytest.mark.trains


def made(*, lacks_protein: bool = False) -> Any:
    """Model of 80 cells of two batches, the second of which may lack a protein."""
    adata = synthetic_iid(batch_size=40, n_genes=10, n_proteins=4, n_regions=0)
    if lacks_protein:
        adata.obsm["protein_expression"][40:, 0] = 0
    TOTALVI.setup_anndata(adata, "protein_expression", batch_key="batch")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Expected counts of every protein")
        return TOTALVI(adata, n_latent=3, n_hidden=8)


def test_proteins_that_were_not_measured_are_said_once_by_each_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adata = synthetic_iid(batch_size=40, n_genes=10, n_proteins=4, n_regions=0)
    adata.obsm["protein_expression"][40:, 0] = 0
    with caplog.at_level("INFO", "cellvae"):
        TOTALVI.setup_anndata(adata, "protein_expression", batch_key="batch")
        assert caplog.messages == [
            "Proteins without counts in all cells of a panel are taken as not measured: 1 of 2 "
            "panels."
        ]
        with pytest.warns(DataWarning, match="zero in all cells of 1 panel") as given:
            TOTALVI(adata, n_latent=3, n_hidden=8)
        assert len(given) == len(caplog.messages) == 1


def train(model: Any, **kwargs: Any) -> Any:
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False, **kwargs)
    return model


@pytest.mark.parametrize(
    ("lacks_protein", "kwargs", "adversary"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, {"adversarial_classifier": True}, True),
        (True, {"adversarial_classifier": False}, False),
    ],
)
def test_an_adversary_is_trained_where_a_panel_lacks_proteins_or_on_demand(
    lacks_protein: bool, kwargs: dict[str, Any], adversary: bool
) -> None:
    history = train(made(lacks_protein=lacks_protein), **kwargs).history
    assert ("adversarial_loss_train" in history) == adversary
    for part in PARTS:
        for name in (f"{part}_train", f"{part}_validation"):
            assert history[name].notna().to_numpy().any(), name


def test_without_validation_cells_one_warning_says_that_nothing_stops_early() -> None:
    model = made()
    with pytest.warns(TrainingWarning) as given:
        train(model, train_size=1.0)
    assert [str(each.message) for each in given] == [str(given[0].message)]
    assert "validation" in str(given[0].message) and "early_stopping" in str(given[0].message)
    assert model.training_report.epochs == 2


def test_a_run_stops_early_and_lowers_its_rate_by_default() -> None:
    defaults = made().train_defaults({})
    assert defaults["early_stopping"] is True
    assert defaults["plan_kwargs"]["reduce_lr_on_plateau"] is True
    model = made()
    with pytest.warns(TrainingWarning, match="no validation cells"):
        without = model.train_defaults({"train_size": 1.0})
    assert "early_stopping" not in without
    assert without["plan_kwargs"]["reduce_lr_on_plateau"] is False


@pytest.mark.parametrize(("kwargs", "batch_size"), [({}, 256), ({"batch_size": 128}, 128)])
def test_the_batch_size_is_that_of_the_model_unless_one_is_given(
    kwargs: dict[str, int], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[Any] = []
    monkeypatch.setattr(
        "cellvae.estimator.training.run_training",
        lambda model, parsed: options.append(parsed.options),
    )
    made().train(**kwargs)
    assert options[0].loader.batch_size == batch_size

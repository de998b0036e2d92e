"""Early stopping of a model that stops early by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from cellvae.errors import TrainingWarning
from cellvae.model import PEAKVI

pytestmark = pytest.mark.trains


@pytest.fixture
def model() -> PEAKVI:
    adata = AnnData(np.random.default_rng(0).binomial(1, 0.3, (60, 20)).astype(np.float32))
    PEAKVI.setup_anndata(adata)
    return PEAKVI(adata, n_hidden=4, n_latent=2)


def train(model: PEAKVI, **kwargs: Any) -> None:
    model.train(max_epochs=2, batch_size=32, enable_progress_bar=False, seed=0, **kwargs)


def test_training_is_watched_by_default(model: PEAKVI) -> None:
    train(model)
    assert model.training_report.monitor == "elbo_validation"
    assert "elbo_validation" in model.history.names


def test_it_stops_after_fifty_checks_without_improvement(model: PEAKVI) -> None:
    from cellvae.train import EarlyStopping

    kwargs = {"early_stopping_min_delta": 1e9}
    model.train(max_epochs=60, batch_size=64, enable_progress_bar=False, seed=0, **kwargs)
    assert model.training_report.status == "stopped_early"
    # The first epoch is the best, and fifty are not better.
    assert model.training_report.epochs == 51
    assert isinstance(model.default_callbacks(early_stopping=True)["early_stopping"], EarlyStopping)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"train_size": 1.0},
        {"train_size": 0.8, "validation_size": 0.0},
        {"datasplitter_kwargs": {"external_indexing": [np.arange(60)]}},
        {"datasplitter_kwargs": {"external_indexing": [np.arange(60), np.where([False])]}},
    ],
)
def test_without_validation_cells_one_warning_says_that_it_is_off(
    model: PEAKVI, kwargs: dict[str, Any]
) -> None:
    with pytest.warns(TrainingWarning, match="will not stop early") as told:
        train(model, **kwargs)
    assert len(told) == 1
    assert model.training_report.monitor is None


def test_who_says_no_is_not_warned(model: PEAKVI) -> None:
    train(model, train_size=1.0, early_stopping=False)
    assert model.training_report.monitor is None
    train(model, early_stopping=False)
    assert model.training_report.monitor is None


def test_defaults_of_a_model_stand_beneath_what_the_user_says(model: PEAKVI) -> None:
    plain = model.parse_train_kwargs({}).options
    assert (plain.optimizer.optimizer, plain.optimizer.lr, plain.optimizer.eps) == (
        "AdamW",
        1e-4,
        1e-8,
    )
    assert (plain.max_epochs, plain.warmup.n_epochs) == (500, 50)
    assert plain.early_stopping is not None and plain.early_stopping.patience == 50
    said = model.parse_train_kwargs(
        {
            "max_epochs": 7,
            "plan_config": {"lr": 1.0, "eps": 0.5},
            "plan_kwargs": {"lr": 0.1},
            "trainer_config": {"early_stopping_patience": 3},
        }
    ).options
    assert (said.optimizer.lr, said.optimizer.eps, said.optimizer.weight_decay) == (0.1, 0.5, 1e-3)
    assert said.max_epochs == 7 and said.early_stopping is not None
    assert said.early_stopping.patience == 3
    direct = model.parse_train_kwargs(
        {"lr": 0.2, "weight_decay": 0.3, "n_steps_kl_warmup": 9}
    ).options
    assert (direct.optimizer.lr, direct.optimizer.weight_decay) == (0.2, 0.3)
    assert direct.warmup.n_steps == 9 and direct.warmup.n_epochs != 50


def test_searches_try_the_optimizer_that_training_would_have(
    model: PEAKVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellvae.train.search import learning_rate_search

    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        learning_rate_search, "find_learning_rate", lambda *args, **kwargs: seen.update(kwargs)
    )
    model.lr_find()
    assert (seen["optimizer"].optimizer, seen["optimizer"].weight_decay) == ("AdamW", 1e-3)

"""Batches of one cell: each model either trains with them or says before why it cannot."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

from cellvae.errors import InvalidDataError, InvalidOptionError

pytestmark = pytest.mark.trains


def split(*parts: Any) -> dict[str, Any]:
    return {"external_indexing": [np.asarray(part) for part in parts]}


def without_batch_norm(case: Any) -> Any:
    """Model whose network does not normalise over batches; skip where there is none."""
    if "use_batch_norm" not in inspect.signature(case.kind.Config).parameters:
        pytest.skip(f"{case.name} always has batch normalisation")
    default = inspect.signature(case.kind.Config).parameters["use_batch_norm"].default
    off = False if isinstance(default, bool) else "none"
    return replace(case, config={**case.config, "use_batch_norm": off}).made()


def normalises(model: Any) -> bool:
    return any(isinstance(part, torch.nn.BatchNorm1d) for part in model.module.modules())


def is_finite(model: Any) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.module.parameters())


def one_cell(case: Any) -> AnnData:
    adata = case.prepared()[:1].copy()
    adata.uns.clear()
    return adata


def test_every_cell_a_batch_of_its_own(case: Any, train: Callable[..., None]) -> None:
    parts = split(range(7), range(7, 8))
    model = without_batch_norm(case)
    train(model, batch_size=1, datasplitter_kwargs=parts, check_val_every_n_epoch=1)
    assert is_finite(model)
    assert model.module.n_cells == 7
    # Adversarial losses count below full KL weight only.
    table = model.history.table.filter(regex="^(?!adversarial_)")
    assert table.notna().all(axis=None)


def test_one_training_cell(case: Any, train: Callable[..., None]) -> None:
    model = without_batch_norm(case)
    train(model, datasplitter_kwargs=split([3], range(4, 6)), check_val_every_n_epoch=1)
    assert is_finite(model)
    # Adversarial losses count below full KL weight only.
    table = model.history.table.filter(regex="^(?!adversarial_)")
    assert table.notna().all(axis=None)


def test_networks_that_normalise_over_batches_refuse_batches_of_one(
    case: Any, train: Callable[..., None]
) -> None:
    model = case.made()
    if not normalises(model):
        pytest.skip(f"{case.name} has no batch normalisation by default")
    with pytest.raises(InvalidOptionError, match="at least 2, since the network normalises") as e:
        train(model, batch_size=1)
    has_option = hasattr(model.config, "use_batch_norm")
    assert ("make the model with use_batch_norm=" in str(e.value)) == has_option
    with pytest.raises(InvalidDataError, match="at least 2 cells to train on, since the network"):
        train(model, datasplitter_kwargs=split([0], range(1, 4)))


def test_a_rest_of_one_cell_and_one_validation_cell(case: Any, train: Callable[..., None]) -> None:
    model = case.made()
    train(model, datasplitter_kwargs=split(range(33), [40]), check_val_every_n_epoch=1)
    assert is_finite(model)
    # Adversarial losses count below full KL weight only.
    table = model.history.table.filter(regex="^(?!adversarial_)")
    assert table.notna().all(axis=None)


def test_every_ability_takes_one_cell(case: Any, trained: Any) -> None:
    if not hasattr(trained, "get_latent_representation"):
        pytest.skip(f"{case.name} is asked about its own cells only")
    adata, asked = one_cell(case), 0
    case.kind.setup_anndata(adata, **case.setup)
    for name, ability in inspect.getmembers(case.kind, inspect.isfunction):
        own = ability.__module__.startswith("cellvae.inference")
        # The first two compare groups of cells; the last takes draws for all cells of the case.
        if not own or name.startswith("differential") or name == "get_importance_weights":
            continue
        parameters, arguments = inspect.signature(ability).parameters, case.arguments.get(name, {})
        if "adata" in parameters:
            getattr(trained, name)(adata, **arguments)
            asked += 1
        if "indices" in parameters:
            getattr(trained, name)(indices=[2], **arguments)
    assert asked >= 4
    mean = trained.get_latent_representation(indices=[2])
    np.testing.assert_allclose(mean, trained.get_latent_representation()[2:3], rtol=1e-4, atol=1e-6)


def test_one_query_cell(case: Any, trained: Any, train: Callable[..., None]) -> None:
    if not hasattr(case.kind, "load_query_data"):
        pytest.skip(f"{case.name} maps no cells")
    adata = one_cell(case)
    adata.obs["batch"] = "new"
    model = case.kind.load_query_data(adata, trained, freeze_batchnorm_decoder=True)
    if case.config.get("use_observed_lib_size", True):
        train(model, train_size=1.0)
        assert is_finite(model) and model.is_trained
    else:
        # The encoder of the sizes of cells is learned anew, and normalises over the batch.
        with pytest.raises(InvalidDataError, match="at least 2 cells"):
            train(model, train_size=1.0)

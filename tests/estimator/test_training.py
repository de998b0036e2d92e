"""model.train(): batches, splits, seeds, devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.errors import InvalidDataError, InvalidOptionError, UnknownOptionError
from cellvae.model import SCVI
from cellvae.settings import settings


@pytest.mark.trains
@pytest.mark.parametrize(
    ("n_cells", "kwargs"),
    [
        (129, {"train_size": 1.0, "batch_size": 128}),  # 128 + 1
        (130, {"train_size": 1.0, "batch_size": 128}),  # 128 + 2
        (257, {"train_size": 1.0, "batch_size": 128}),  # 2 x 128 + 1
        (143, {"train_size": 0.9, "batch_size": 128}),  # ceil(128.7) = 128 + 1
        (33, {"train_size": 1.0, "validation_size": 0.0, "batch_size": 16}),
        (33, {"batch_size": 29}),  # ceil(29.7) = 29 + 1
        (33, {"train_size": 1.0, "batch_size": 2}),
        (3, {"train_size": 1.0, "batch_size": 2}),
        (2, {"train_size": 1.0}),
        (34, {"train_size": 0.5, "batch_size": 16, "check_val_every_n_epoch": 1}),
    ],
)
def test_a_rest_of_one_cell_never_ends_training(
    n_cells: int,
    kwargs: dict[str, Any],
    cells: Callable[..., AnnData],
    make: Callable[..., SCVI],
    train: Callable[..., SCVI],
) -> None:
    model = train(make(cells(n_cells), {}), **kwargs)
    assert np.isfinite(model.history["elbo_train"].to_numpy()).all()
    if kwargs.get("train_size") == 1.0:
        assert len(model.train_indices) == n_cells
    parts = (model.train_indices, model.validation_indices, model.test_indices)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n_cells))


def test_a_single_cell_cannot_be_trained_on(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    with pytest.raises(InvalidDataError, match="at least 2 cells to train on, since .*; got 1"):
        train(make(cells(1), {}), train_size=1.0)


@pytest.mark.trains
def test_shares_and_positions_are_those_asked_for(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    model = make(adata)
    assert model.train_indices is None
    assert model.validation_indices is None
    assert model.test_indices is None
    train(model, train_size=0.5, validation_size=0.2, seed=11)
    # scvi-tools' split: numpy's legacy permutation, validation first, then training.
    order = np.random.RandomState(11).permutation(70)
    assert np.array_equal(model.validation_indices, order[:14])
    assert np.array_equal(model.train_indices, order[14:49])
    assert np.array_equal(model.test_indices, order[49:])
    train(model, train_size=0.5, validation_size=0.5, shuffle_set_split=False)
    assert np.array_equal(model.train_indices, np.arange(35, 70))


@pytest.mark.trains
def test_a_split_of_the_users_is_used(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    parts = [np.arange(40), np.arange(40, 60), [65, 61]]
    model = train(make(adata), datasplitter_kwargs={"external_indexing": parts})
    assert np.array_equal(model.train_indices, parts[0])
    assert np.array_equal(model.validation_indices, parts[1])
    assert np.array_equal(model.test_indices, parts[2])
    train(model)
    assert np.array_equal(model.train_indices, parts[0])
    parts[1] = np.arange(39, 60)
    with pytest.raises(InvalidOptionError, match="both for training and validation: '39'"):
        train(model, datasplitter_kwargs={"external_indexing": parts})
    with pytest.raises(InvalidOptionError, match="external_indexing as"):
        train(model, datasplitter_kwargs={"external_indexing": np.arange(70)})
    is_train = pd.Series(np.arange(70) < 40, index=adata.obs_names)[::-1]
    names = adata.obs_names[40:60]
    given = [is_train, names, np.where(adata.obs_names.isin(["cell61", "cell65"]))]
    train(model, datasplitter_kwargs={"external_indexing": given})
    assert np.array_equal(model.train_indices, np.arange(40))
    assert np.array_equal(model.validation_indices, np.arange(40, 60))
    assert np.array_equal(model.test_indices, [61, 65])


@pytest.mark.trains
@pytest.mark.usefixtures("settings_put_back")
def test_the_seed_of_the_settings_is_that_of_weights_split_and_noise(
    cells: Callable[..., AnnData], train: Callable[..., SCVI]
) -> None:
    latents = []
    for seed in (3, 3, 4):
        adata = cells()
        settings.seed = seed
        SCVI.setup_anndata(adata)
        model = train(SCVI(adata, n_hidden=8, n_latent=3), seed=None)
        assert model.training_report.seed == seed
        latents.append(model.get_latent_representation())
    assert np.array_equal(latents[0], latents[1])
    assert not np.array_equal(latents[0], latents[2])


@pytest.mark.trains
@pytest.mark.usefixtures("settings_put_back")
def test_without_a_seed_torchs_global_one_governs(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    settings.seed = None
    seeds = []
    for number in (1, 1, 2):
        model = make(cells())
        torch.manual_seed(number)
        train(model, seed=None)
        seeds.append(model.training_report.seed)
    assert seeds[0] == seeds[1] != seeds[2]
    repeated = train(make(cells()), seed=seeds[2])
    assert np.array_equal(repeated.get_latent_representation(), model.get_latent_representation())


@pytest.mark.trains
def test_a_word_of_the_call_goes_before_the_same_word_in_a_config(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    model = make(adata)
    train(model, trainer_config={"max_epochs": 5, "check_val_every_n_epoch": 1}, max_epochs=2)
    assert model.history.table.index.tolist() == [0, 1]
    assert "elbo_validation" in model.history


def test_progress_is_shown_unless_the_settings_say_no(
    adata: AnnData,
    make: Callable[..., SCVI],
    monkeypatch: pytest.MonkeyPatch,
    settings_put_back: None,
) -> None:
    shown = []
    model = make(adata)
    monkeypatch.setattr(
        "cellvae.estimator.training.run_training",
        lambda _, parsed: shown.append(parsed.options.progress.enabled),
    )
    model.train()
    settings.progress_bar = False
    model.train()
    model.train(enable_progress_bar=True)
    assert shown == [True, False, True]


def test_data_modules_are_not_supported_yet(adata: AnnData, make: Callable[..., SCVI]) -> None:
    with pytest.raises(InvalidOptionError, match="datamodule is not supported yet"):
        make(adata).train(datamodule=object())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_epoch": 3}, r"train\(\) has no option 'max_epoch'. Did you mean 'max_epochs'\?"),
        ({"plan_kwargs": {"lrr": 1}}, r"plan_kwargs has no option 'lrr'. Did you mean 'lr'\?"),
        ({"datasplitter_kwargs": {"droplast": True}}, r"Did you mean 'drop_last'\?"),
        ({"trainer_config": {"devicess": 1}}, r"Did you mean 'devices'\?"),
    ],
)
def test_misspelt_words_are_refused_at_any_depth(
    kwargs: dict[str, Any], message: str, adata: AnnData, make: Callable[..., SCVI]
) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        make(adata).train(**kwargs)


def test_the_network_moves_to_the_device_asked_for(
    adata: AnnData, make: Callable[..., SCVI]
) -> None:
    model = make(adata)
    model.to_device("meta")
    assert model.device == torch.device("meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu_gives_a_model_that_answers_there(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    model = train(make(adata), accelerator="gpu")
    assert model.device.type == "cuda"
    on_gpu = model.get_latent_representation()
    model.to_device("cpu")
    np.testing.assert_allclose(model.get_latent_representation(), on_gpu, rtol=1e-3, atol=1e-4)

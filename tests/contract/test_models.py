"""What every model of the table does."""

from __future__ import annotations

import dataclasses
import inspect
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch.distributions import Distribution

from cellvae.data.batches.batching import iter_batches
from cellvae.data.files.open_cells import open_cells
from cellvae.errors import InvalidOptionError, NotTrainedError, UnknownOptionError
from cellvae.model import MODELS

pytestmark = pytest.mark.trains

# Latents of saved models by a Python that has never seen them.
READ_IN_A_NEW_PROCESS = """
import sys
import numpy as np
import cellvae

for folder in sys.argv[1:]:
    model = cellvae.load(folder)
    name = "get_latent_representation" if "SOLO" not in folder else "predict"
    np.save(folder + "/again.npy", getattr(model, name)())
"""


def answer(model: Any) -> np.ndarray:
    """What a model says of each cell: its latent, or its class."""
    ask = model.predict if not hasattr(model, "get_latent_representation") else None
    return np.asarray((ask or model.get_latent_representation)())


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def global_state() -> tuple[Any, ...]:
    """Everything global that random numbers come from, and what training could switch."""
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2:],
        # Checks of types at run time, where they are turned on, draw from this one themselves.
        None if "beartype" in sys.modules else random.getstate(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


def abilities(kind: type) -> list[str]:
    """Names of the functions of inference that a model lists."""
    return [
        name
        for name, value in inspect.getmembers(kind, inspect.isfunction)
        if value.__module__.startswith("cellvae.inference")
    ]


def numbers_in(result: Any) -> np.ndarray:
    """All numbers of what an ability returned."""
    if isinstance(result, dict) and any(sparse.issparse(part) for part in result.values()):
        return np.concatenate([numbers_in(part).ravel() for part in result.values()])
    if sparse.issparse(result):
        result = result.toarray()
    if isinstance(result, Distribution):
        result = result.mean
    if isinstance(result, pd.DataFrame):
        result = result.select_dtypes(["number", "bool"]).astype(float)
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, tuple):
        return np.concatenate([np.ravel(np.asarray(part)) for part in result])
    return np.ravel(np.asarray(result))


def test_every_model_of_the_table_runs_the_gauntlet(cases: Any) -> None:
    assert {case.name for case in cases} == set(MODELS)


def test_the_name_in_the_table_is_that_of_the_class(case: Any) -> None:
    assert case.kind.__name__ == case.name
    assert not inspect.isabstract(case.kind)


def test_training_lowers_the_loss(trained: Any) -> None:
    elbo = trained.history["elbo_train"]["elbo_train"]
    assert elbo.notna().all()
    # A cross-entropy is a fraction of a nat.
    least = 1 if hasattr(trained, "get_latent_representation") else 0.2
    assert elbo.iloc[-1] < elbo.iloc[0] - least
    held_out = trained.history["elbo_validation"]["elbo_validation"]
    assert held_out.iloc[-1] < held_out.iloc[0] - least


def test_gradients_reach_every_parameter(case: Any) -> None:
    model = case.made()
    model.module.train()
    _, batch = next(iter_batches(model.rows, torch.arange(32), 32))
    model.module.loss(batch, torch.tensor(0.5)).loss.backward()
    for name, parameter in model.module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A bias before batch normalisation has no influence, so its gradient is 0 but for rounding.
        if not name.endswith("bias"):
            assert parameter.grad.abs().max() > 0, name


def test_a_loss_has_one_value_a_cell_and_their_weighted_mean(case: Any) -> None:
    model = case.made()
    _, batch = next(iter_batches(model.rows, torch.arange(20), 20))
    torch.manual_seed(1)
    full = model.module.loss(batch, torch.tensor(1.0))
    assert full.total_reconstruction.shape == full.total_kl.shape == (20,)
    assert (full.total_kl >= 0).all()
    shared = full.kl_global / model.module.n_cells
    torch.testing.assert_close(
        full.loss, (full.total_reconstruction + full.total_kl).mean() + shared
    )
    torch.manual_seed(1)
    without = model.module.loss(batch, torch.tensor(0.0))
    assert without.loss < full.loss or not full.total_kl.any()
    torch.testing.assert_close(without.total_reconstruction, full.total_reconstruction)


def test_runs_of_one_seed_have_equal_weights(case: Any, train: Callable[..., None]) -> None:
    results = []
    for noise in (3, 4):
        model = case.made()
        torch.manual_seed(noise)
        np.random.seed(noise)
        train(model, seed=5)
        results.append((weights(model), model.history.table, model.train_indices))
    (first, history, split), (second, again, split_again) = results
    assert same(first, second)
    assert np.array_equal(split, split_again)
    assert history.equals(again)


def test_runs_of_other_seeds_differ(case: Any, train: Callable[..., None]) -> None:
    models = [case.made() for _ in range(2)]
    for seed, model in enumerate(models):
        train(model, max_epochs=1, seed=seed)
    assert not same(weights(models[0]), weights(models[1]))
    assert not np.array_equal(models[0].train_indices, models[1].train_indices)


def test_training_with_a_seed_leaves_global_state_alone(
    case: Any, train: Callable[..., None]
) -> None:
    model = case.made()
    before = global_state()
    train(model, check_val_every_n_epoch=1)
    assert global_state() == before


def test_the_learning_rate_falls_on_a_plateau_of_validation_in_every_second_epoch(
    case: Any, train: Callable[..., None]
) -> None:
    model = case.made()
    plan = {"reduce_lr_on_plateau": True, "lr": 0.01, "lr_patience": 0, "lr_factor": 0.5}
    train(
        model,
        max_epochs=7,
        check_val_every_n_epoch=2,
        plan_kwargs={**plan, "lr_threshold": 1e9},
    )
    (name,) = [name for name in model.history if name.startswith("lr-")]
    rates = model.history[name][name].tolist()
    # Measured in epochs 1, 3 and 5: the first is the best so far, the others no improvement.
    assert rates == pytest.approx([0.01] * 4 + [0.005] * 2 + [0.0025])
    assert model.history["elbo_validation"].index.tolist() == [1, 3, 5]


def test_training_ends_in_eval_mode_without_gradients_left(trained: Any) -> None:
    assert not any(part.training for part in trained.module.modules())
    assert trained.is_trained
    assert trained.device == torch.device("cpu")


def test_a_second_training_goes_on_where_the_first_ended(
    case: Any, train: Callable[..., None]
) -> None:
    model = case.made()
    train(model, max_epochs=2)
    first, parts = weights(model), (model.train_indices, model.validation_indices)
    train(model, max_epochs=3, seed=9)
    table = model.history.table
    assert table.index.tolist() == [0, 1, 2, 3, 4]
    assert table["elbo_train"].notna().all()
    assert table.index.name == "epoch"
    assert not same(first, weights(model))
    assert np.array_equal(parts[0], model.train_indices)
    assert np.array_equal(parts[1], model.validation_indices)


def test_a_run_that_fails_leaves_the_model_as_it_was(case: Any, train: Callable[..., None]) -> None:
    from lightning.pytorch import Callback

    class Broken(Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            raise ArithmeticError("on purpose")

    model = case.made()
    before = weights(model)
    with pytest.raises(ArithmeticError, match="on purpose"):
        train(model, callbacks=[Broken()])
    assert not model.is_trained
    assert same(before, weights(model))
    assert not any(part.training for part in model.module.modules())
    assert model.training_report.status == "failed"
    train(model)
    assert model.is_trained
    assert model.history.table.index.tolist() == [0, 1]


def test_training_and_validation_cells_cover_all_once(trained: Any) -> None:
    parts = (trained.train_indices, trained.validation_indices, trained.test_indices)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(trained.adata.n_obs))
    assert len(trained.train_indices) == 87  # ceil(0.9 * 96)


def test_saved_models_answer_alike_here_and_in_a_new_process(
    cases: Any, train: Callable[..., None], tmp_path: Path
) -> None:
    expected = {}
    for case in cases:
        model = case.made()
        train(model, max_epochs=1)
        folder = tmp_path / case.label
        model.save(folder, save_anndata=True)
        expected[folder] = answer(model)
        again = case.kind.load(folder, model.adata)
        assert same(weights(model), weights(again))
        assert np.array_equal(answer(again), expected[folder])
    done = subprocess.run(
        [sys.executable, "-c", READ_IN_A_NEW_PROCESS, *map(str, expected)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for folder, latent in expected.items():
        assert np.array_equal(np.load(folder / "again.npy"), latent)


def test_a_loaded_model_knows_all_that_the_saved_one_did(
    case: Any, trained: Any, tmp_path: Path
) -> None:
    trained.save(tmp_path)
    again = case.kind.load(tmp_path)
    assert again.config == trained.config
    assert again.registration == trained.registration
    assert again.history.table.equals(trained.history.table)
    assert again.training_report == trained.training_report
    assert again.is_trained
    assert again.adata is None
    for part in ("train_indices", "validation_indices", "test_indices"):
        assert np.array_equal(getattr(again, part), getattr(trained, part))
    assert repr(again) == repr(trained)


def test_saving_changes_nothing(case: Any, train: Callable[..., None], tmp_path: Path) -> None:
    model = case.made()
    train(model)
    obs = model.adata.obs.copy()
    latent, before, state = answer(model), weights(model), global_state()
    model.save(tmp_path / "first", save_anndata=True)
    model.save(tmp_path / "second")
    assert global_state() == state
    assert same(before, weights(model))
    assert np.array_equal(latent, answer(model))
    assert model.adata.obs.equals(obs)
    assert (model.adata.obs.dtypes == obs.dtypes).all()
    first, second = (
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("first", "second")
    )
    assert first == second


def test_every_ability_answers_with_finite_numbers(case: Any, trained: Any) -> None:
    assert abilities(case.kind)
    for name in abilities(case.kind):
        ability = getattr(trained, name)
        assert inspect.getdoc(ability), name
        result = numbers_in(ability(**case.arguments.get(name, {})))
        assert result.size, name
        assert np.isfinite(result).all(), name


def test_cells_in_files_take_the_place_of_an_anndata(
    case: Any, train: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    adata = case.prepared()
    adata.uns.clear()
    # One file is sparse, as most are.
    adata[:50].copy().write_h5ad(tmp_path / "a.h5ad")
    second = adata[50:].copy()
    second.X = sparse.csr_matrix(second.X)
    second.layers["words"] = sparse.csr_matrix(second.layers["words"])
    second.write_h5ad(tmp_path / "b.h5ad")
    cells = open_cells(tmp_path / "*.h5ad")
    case.kind.setup_anndata(cells, **case.setup)
    model = case.made(cells)
    train(model, check_val_every_n_epoch=1)
    assert model.history.table.filter(like="elbo").notna().all(axis=None)
    for name in abilities(case.kind):
        result = numbers_in(getattr(model, name)(**case.arguments.get(name, {})))
        assert np.isfinite(result).all(), name
    model.save(tmp_path / "model")
    in_memory = case.kind.load(tmp_path / "model", adata)
    np.testing.assert_allclose(answer(in_memory), answer(model), rtol=1e-5, atol=1e-6)


def test_every_ability_needs_training(case: Any) -> None:
    model = case.made()
    for name in abilities(case.kind):
        with pytest.raises(NotTrainedError, match=r"Call train\(\) first"):
            getattr(model, name)(**case.arguments.get(name, {}))


def test_asking_changes_no_weights_and_no_mode(case: Any, train: Callable[..., None]) -> None:
    model = case.made()
    train(model)
    before = weights(model)
    next(iter(model.module.children())).train()  # a user's own choice
    modes = [part.training for part in model.module.modules()]
    for name in abilities(case.kind):
        getattr(model, name)(**case.arguments.get(name, {}))
    assert same(before, weights(model))
    assert [part.training for part in model.module.modules()] == modes
    assert any(modes)
    assert all(p.requires_grad for p in model.module.parameters())


def test_public_functions_have_docstrings(case: Any) -> None:
    names = [name for name, _ in inspect.getmembers(case.kind, callable) if name[0] != "_"]
    names += ["train", "save", "load", "to_device", "view_anndata_setup", "setup_anndata"]
    for name in names:
        assert inspect.getdoc(getattr(case.kind, name)), name
    assert ">>>" in case.kind.__doc__
    assert "References" in case.kind.__doc__


def test_repr_says_what_the_model_is(case: Any, trained: Any) -> None:
    lines = repr(trained).splitlines()
    axes = trained.registration.axes.values()
    features = ", ".join(f"{len(axis)} {axis.name}" for axis in axes)
    assert lines[0] == f"{case.name} model of 96 cells x {features}"
    assert "n_hidden=8" in lines[1]
    key, value = next(iter(case.setup.items()))
    assert f"{key}={value!r}" in lines[2]
    assert lines[-1].strip() == "trained: 8 epochs"
    assert repr(case.made()).endswith("trained: no")


def test_the_signature_lists_every_option_with_its_default(case: Any) -> None:
    parameters = inspect.signature(case.kind).parameters
    options = {f.name: f.default for f in dataclasses.fields(case.kind.Config)}
    assert next(iter(parameters)) == "adata"
    assert {n: p.default for n, p in parameters.items() if n != "adata"} == options


def test_options_are_refused_before_anything_is_read(case: Any) -> None:
    with pytest.raises(UnknownOptionError, match="Did you mean 'n_hidden'"):
        case.kind(None, n_hiddens=3)
    with pytest.raises(InvalidOptionError, match="n_hidden to be at least 1"):
        case.kind(None, n_hidden=0)


def test_misspelt_words_of_train_are_refused_with_the_right_one(case: Any) -> None:
    model = case.made()
    with pytest.raises(UnknownOptionError, match="Did you mean 'early_stopping'"):
        model.train(early_stoping=True)
    assert not model.is_trained
    assert model.training_report is None

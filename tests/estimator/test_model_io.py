"""Models saved and loaded: whole, by prefix, with cells, from checkpoints, and damaged ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from anndata import AnnData
from safetensors.torch import load_file, save_file

import cellvae
from cellvae.errors import (
    CellvaeError,
    DataMismatchError,
    FileFormatError,
    InvalidOptionError,
    NotTrainedError,
    UnknownOptionError,
)
from cellvae.model import SCVI
from cellvae.model import models as loading
from cellvae.train import SaveCheckpoint

pytestmark = pytest.mark.trains


def edited(folder: Path, *path: str, value: Any) -> None:
    """Change one value of model.json, and have the weights agree with it."""
    file = folder / "model.json"
    document = json.loads(file.read_text())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(document))
    if path[0] != "files":
        replaced(folder, "weights.safetensors", load_file(folder / "weights.safetensors"))


def replaced(folder: Path, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """Change a file of tensors, with a checksum that fits."""
    import hashlib

    save_file(tensors, folder / name)
    content = (folder / name).read_bytes()
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edited(folder, "files", name, value=facts)


@pytest.fixture
def folder(trained: SCVI, tmp_path: Path) -> Path:
    """Folder of a saved model."""
    trained.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_is_a_few_files(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.json", "weights.safetensors", "cells.safetensors"}
    document = json.loads((folder / "model.json").read_text())
    assert document["model"] == "SCVI"
    assert document["config"]["n_latent"] == 3
    assert document["library_version"] == cellvae.__version__
    assert {"python", "torch", "lightning", "anndata", "numpy"} <= set(document["versions"])


def test_a_model_that_is_there_is_replaced_only_on_demand(
    trained: SCVI, folder: Path, adata: AnnData, make: Callable[..., SCVI]
) -> None:
    other = make(adata, n_latent=2)
    with pytest.raises(InvalidOptionError, match="overwrite=True"):
        other.save(folder)
    assert SCVI.load(folder).config.n_latent == 3
    other.save(folder, overwrite=True)
    assert SCVI.load(folder).config.n_latent == 2
    assert SCVI.load(folder).train_indices is None


def test_prefixes_keep_models_apart_in_one_folder(
    trained: SCVI, adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    trained.save(tmp_path, prefix="a_")
    make(adata, n_latent=2).save(tmp_path, prefix="b_")
    assert SCVI.load(tmp_path, prefix="a_").config.n_latent == 3
    assert cellvae.load(tmp_path, prefix="b_").config.n_latent == 2
    with pytest.raises(FileFormatError):
        SCVI.load(tmp_path)


def test_cells_are_saved_along_on_demand(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI],
    tmp_path: Path,
) -> None:  # fmt: skip
    model = train(make(cells(), {"batch_key": "batch", "labels_key": "label"}))
    model.save(tmp_path / "with", save_anndata=True, compression="gzip")
    again = SCVI.load(tmp_path / "with")
    assert np.array_equal(again.adata.X, model.adata.X)
    assert again.adata.obs["label"].tolist() == model.adata.obs["label"].tolist()
    expected = model.get_latent_representation()
    assert np.array_equal(again.get_latent_representation(), expected)
    (tmp_path / "with" / "adata.h5ad").unlink()
    with pytest.raises((FileFormatError, FileNotFoundError), match=r"adata\.h5ad"):
        SCVI.load(tmp_path / "with")
    assert np.array_equal(
        SCVI.load(tmp_path / "with", cells()).get_latent_representation(), expected
    )


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_cells_on_disk_are_saved_along_and_stay_where_they_are(
    mode: str, cells: Callable[..., AnnData], make: Callable[..., SCVI],
    train: Callable[..., SCVI], tmp_path: Path,
) -> None:  # fmt: skip
    cells().write_h5ad(tmp_path / "cells.h5ad")
    on_disk = anndata.read_h5ad(tmp_path / "cells.h5ad", backed=mode)
    model = train(make(on_disk))
    expected = model.get_latent_representation()
    model.save(tmp_path / "model", save_anndata=True)
    assert Path(on_disk.filename) == tmp_path / "cells.h5ad"
    assert np.array_equal(model.get_latent_representation(), expected)
    assert np.array_equal(SCVI.load(tmp_path / "model").get_latent_representation(), expected)


def test_misspelt_words_of_save_are_refused(trained: SCVI, tmp_path: Path) -> None:
    with pytest.raises(UnknownOptionError, match=r"'overwite'. Did you mean 'overwrite'\?"):
        trained.save(tmp_path / "model", overwite=True)
    assert not (tmp_path / "model").exists()


def test_an_untrained_model_can_be_saved_and_trained_later(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI],
    tmp_path: Path,
) -> None:  # fmt: skip
    model = make(cells(), use_observed_lib_size=False)
    model.save(tmp_path)
    again = SCVI.load(tmp_path, cells())
    assert not again.is_trained
    assert again.train_indices is None
    with pytest.raises(NotTrainedError):
        again.get_latent_representation()
    assert np.array_equal(
        train(again).get_latent_representation(), train(model).get_latent_representation()
    )


def test_a_loaded_model_trains_on_as_the_saved_one_would(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI],
    tmp_path: Path,
) -> None:  # fmt: skip
    model = train(make(cells()))
    model.save(tmp_path)
    again = SCVI.load(tmp_path, cells())
    # The optimizer is no part of a saved model: it starts anew.
    model.carryover = None
    for each in (model, again):
        train(each, seed=4)
    assert again.history.table.equals(model.history.table)
    assert again.history.table.index.tolist() == [0, 1]
    assert np.array_equal(again.train_indices, model.train_indices)
    assert np.array_equal(again.get_latent_representation(), model.get_latent_representation())


def test_a_model_loaded_without_cells_answers_for_those_it_is_given(
    trained: SCVI, folder: Path, cells: Callable[..., AnnData], train: Callable[..., SCVI]
) -> None:
    model = SCVI.load(folder)
    assert model.adata is None
    with pytest.raises(DataMismatchError, match="loaded without cells. Give adata"):
        model.get_latent_representation()
    with pytest.raises(DataMismatchError, match=r"Load it with adata=\.\.\."):
        train(model)
    with pytest.raises(InvalidOptionError, match="needs cells"):
        model.save(folder, overwrite=True, save_anndata=True)
    expected = trained.get_latent_representation()
    assert np.array_equal(model.get_latent_representation(cells()), expected)
    model.view_anndata_setup()


def test_cells_for_a_loaded_model_are_checked(folder: Path, cells: Callable[..., AnnData]) -> None:
    with pytest.raises(DataMismatchError, match="missing 'gene0'"):
        SCVI.load(folder, cells()[:, 1:].copy())


def test_training_on_other_cells_divides_them_anew(
    folder: Path, cells: Callable[..., AnnData], train: Callable[..., SCVI], tmp_path: Path
) -> None:
    model = SCVI.load(folder, cells(90, seed=1))
    checkpoint = SaveCheckpoint(tmp_path / "checkpoints")
    train(model, callbacks=[checkpoint])
    parts = np.concatenate([model.train_indices, model.validation_indices])
    assert np.array_equal(np.sort(parts), np.arange(90))
    model.save(tmp_path / "again")
    for place in (tmp_path / "again", checkpoint.best_model_path):
        again = SCVI.load(place)
        assert np.array_equal(again.train_indices, model.train_indices)
        assert again.registration.n_cells == 90


def test_checkpoints_are_models(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI],
    tmp_path: Path,
) -> None:  # fmt: skip
    checkpoint = SaveCheckpoint(tmp_path, monitor="elbo_validation", save_top_k=-1)
    model = train(make(cells()), max_epochs=3, callbacks=[checkpoint])
    assert len(checkpoint.best_k_models) == 3
    for path, score in checkpoint.best_k_models.items():
        saved = cellvae.load(path, cells())
        assert saved.is_trained
        assert np.array_equal(saved.train_indices, model.train_indices)
        recorded = saved.history["elbo_validation"]["elbo_validation"].iloc[-1]
        assert recorded == pytest.approx(float(score), rel=1e-6)
        assert repr(saved).splitlines()[-1] == f"  trained: {len(saved.history.epochs)} epochs"
    best = SCVI.load(checkpoint.best_model_path, cells())
    assert np.array_equal(best.get_latent_representation(), model.get_latent_representation())
    # A model is saved as it was; its own training is not over then.
    assert train(best).history.table.index.is_monotonic_increasing


def test_the_kind_of_a_model_is_read_from_its_folder(
    trained: SCVI, folder: Path, cells: Callable[..., AnnData]
) -> None:
    model = cellvae.load(folder, cells(), accelerator="cpu")
    assert type(model) is SCVI
    assert np.array_equal(model.get_latent_representation(), trained.get_latent_representation())
    assert loading.load is cellvae.load


def test_a_model_of_another_kind_is_refused_by_name(folder: Path) -> None:
    edited(folder, "model", value="GIMVI")
    with pytest.raises(FileFormatError, match="a saved SCVI in .* got a GIMVI"):
        SCVI.load(folder)
    with pytest.raises(FileFormatError, match=r"knows \(SCVI.*got 'GIMVI'"):
        cellvae.load(folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises((FileFormatError, FileNotFoundError)):
        SCVI.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        cellvae.load(tmp_path / "missing")


def numbered(n: int) -> dict[str, Any]:
    return {"epochs": [0], "metrics": {"elbo_train": [1.0] * n}}


HOSTILE: dict[str, tuple[tuple[str, ...], Any]] = {
    "wide": (("config", "n_hidden"), 10**12),
    "wider than a float": (("config", "n_hidden"), 10**400),
    "deep": (("config", "n_layers"), 10**9),
    "long latent": (("config", "n_latent"), 65_536),
    "many": (("config", "dropout_rate"), 10**400),
    "text": (("config", "n_hidden"), "8"),
    "unknown option": (("config", "eval"), "print(1)"),
    "unknown likelihood": (("config", "gene_likelihood"), "__import__('os')"),
    "embedding": (("config", "batch_embedding_kwargs"), {"embedding_dim": 10**9}),
    "no config": (("config",), []),
    "fewer genes": (("registration", "genes"), ["gene0"]),
    "no genes": (("registration", "genes"), []),
    "another batch": (("registration", "keys"), {"batch_key": "label"}),
    "another layer": (("registration", "keys"), {"batch_key": "batch", "layer": "x"}),
    "unknown key": (("registration", "keys"), {"bach_key": "batch"}),
    "no fields": (("registration", "fields"), {}),
    "more categories": (("registration", "fields", "batch", "categories"), ["a", "b", "c", "d"]),
    "no cells": (("registration", "n_cells"), 0),
    "fewer cells than the split": (("registration", "n_cells"), 50),
    "report": (("training", "report"), {"status": "completed", "command": "rm"}),
    "report of numbers": (("training", "report"), [1, 2]),
    "report as text": (("training", "report"), "completed"),
    "history": (("history",), {"epochs": 3}),
    "longer history": (("history",), numbered(2)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_and_hostile_records_are_refused_at_once(name: str, folder: Path) -> None:
    path, value = HOSTILE[name]
    edited(folder, *path, value=value)
    started = time.monotonic()
    with pytest.raises(FileFormatError):
        SCVI.load(folder)
    assert time.monotonic() - started < 5


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


@pytest.mark.parametrize("change", ["another shape", "another type", "one missing", "one more"])
def test_weights_that_do_not_fit_the_network_are_refused(change: str, folder: Path) -> None:
    weights = tensors_of(folder)
    name = "z_encoder.mean_encoder.weight"
    match change:
        case "another shape":
            weights[name] = weights[name][:2].contiguous()
        case "another type":
            weights[name] = weights[name].double()
        case "one missing":
            del weights[name]
        case "one more":
            weights["hook"] = torch.zeros(1)
    replaced(folder, "weights.safetensors", weights)
    with pytest.raises(FileFormatError):
        SCVI.load(folder)


def positions(*parts: Iterable[int]) -> dict[str, torch.Tensor]:
    names = ("train", "validation", "test")
    return {
        name: torch.tensor([*part], dtype=torch.int64)
        for name, part in zip(names, parts, strict=True)
    }


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((range(60), range(60, 71), ()), "indices of training cells below 70"),
        ((range(-1, 60), range(60, 70), ()), "indices of training cells below 70"),
        (((), range(60, 70), ()), "indices of training cells below 70"),
        ((range(60), range(59, 70), ()), "each cell once"),
    ],
)
def test_splits_that_cannot_be_are_refused(
    parts: tuple[Iterable[int], ...], message: str, folder: Path
) -> None:
    replaced(folder, "cells.safetensors", positions(*parts))
    with pytest.raises(FileFormatError, match=message):
        SCVI.load(folder)


def test_a_file_that_was_cut_is_refused(folder: Path) -> None:
    content = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(content[:-1])
    with pytest.raises(CellvaeError):
        SCVI.load(folder)

"""Resuming a run: which state is read, and what the run must have in common with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellvae.core.log import warn
from cellvae.data import Split
from cellvae.data.setup.cell_values import (
    CellValues,
    differing_columns,
    read_cell_values,
    to_smallest_integers,
)
from cellvae.errors import (
    FileFormatError,
    InvalidOptionError,
    TrainingWarning,
    UnsafeFileError,
    count_noun,
)
from cellvae.persistence.training_state import SUFFIX, parse_state, verified_content
from cellvae.scvi.files import is_scvi_model
from cellvae.train.records.jsonable import jsonable

if TYPE_CHECKING:
    from cellvae.data.storage.memory import ColumnRows
    from cellvae.estimator.base_model import BaseModel
    from cellvae.train.options.train_kwargs import ParsedTrainKwargs
    from cellvae.train.options.train_options import TrainOptions
    from cellvae.train.resume.training_state import TrainingState

LIGHTNING_KEYS = b"pytorch-lightning_version"
"""Key that every checkpoint of Lightning has."""


def state_folder(model: BaseModel, parsed: ParsedTrainKwargs, run_dir: Path | None) -> Path | None:
    """Folder of the state of a run; None if no state is saved."""
    from cellvae.train.callbacks.checkpointing.training_checkpoint import TrainingCheckpoint

    for callback in parsed.callbacks:
        if isinstance(callback, TrainingCheckpoint) and callback.dirpath is not None:
            return callback.dirpath
    resume = parsed.options.resume
    if run_dir is not None:
        return run_dir / "state"
    if isinstance(resume, str | Path) and resume != "auto":
        path = Path(resume).expanduser()
        return path if path.is_dir() else path.parent
    if resume or any(isinstance(c, TrainingCheckpoint) for c in parsed.callbacks):
        root = parsed.options.trainer.get("default_root_dir") or "."
        return Path(root) / "training-state" / type(model).__name__
    return None


def state_to_resume(options: TrainOptions, state_dir: Path | None) -> TrainingState | None:
    """State to resume from; None if there is none, which only `resume="auto"` allows.

    From a folder the newest state is read, or the one before it if the newest is damaged.

    Raises
    ------
    InvalidOptionError
        If a path was given and no state is there.
    FileFormatError
        If the state is damaged, or all states of a folder are.
    """
    from cellvae.train.callbacks.checkpointing.training_checkpoint import states_in, states_to_try

    resume = options.resume
    if not resume:
        return None
    if resume is True or resume == "auto":
        paths = [] if state_dir is None else states_to_try(state_dir)
        return newest_complete_state(paths) if paths else None
    given = Path(resume).expanduser()
    paths = states_to_try(given) if given.is_dir() else [given]
    if not paths or not paths[0].exists() or is_another_file(paths[0]):
        raise InvalidOptionError(
            f"Expected resume to be the state of a run, or a folder with one; got '{given}', "
            f"{describe_wrong_state(given)}"
        )
    try:
        return newest_complete_state(paths)
    except UnsafeFileError:
        raise
    except FileFormatError as error:
        before = [path for path in states_in(given.parent) if path.name < given.name]
        if given.is_dir() or not before:
            raise
        raise FileFormatError(f"{error} The state before it is {before[-1]}.") from error


def newest_complete_state(paths: Sequence[Path]) -> TrainingState:
    """First state that is not damaged, in the given order; a warning names the first damaged one.

    Raises
    ------
    FileFormatError
        If all are damaged, or the first undamaged one was written by another version.
    """
    from cellvae.train.resume.training_state import TrainingState

    damaged: list[FileFormatError] = []
    for path in paths:
        try:
            content = verified_content(path)
        except UnsafeFileError:
            raise
        except FileFormatError as error:
            damaged.append(error)
            continue
        state = TrainingState.from_values(parse_state(content, path), path)
        if damaged:
            warn(
                f"{damaged[0].args[0]} Resuming from the state before it, {path}, "
                f"which was written after {count_noun(state.n_epochs, 'epoch')} of the run.",
                TrainingWarning,
            )
        return state
    if len(damaged) > 1:
        others = f" So are {count_noun(len(damaged) - 1, 'earlier state')} beside it."
        raise FileFormatError(f"{damaged[0]}{others}") from damaged[0]
    raise damaged[0]


def is_another_file(path: Path) -> bool:
    """Whether a file is not a state but written by other software, by its name and content."""
    if path.suffix in (".ckpt", ".pt", ".safetensors", ".json", ".h5ad"):
        return True
    return path.suffix != SUFFIX and path.is_file() and LIGHTNING_KEYS in path.read_bytes()


def describe_wrong_state(given: Path) -> str:
    """End of an error: what the path holds in place of a state, and what to do with it."""
    if not given.exists():
        return (
            "which is not there. Check the path, or give resume='auto' to start a new run if "
            "there is no state."
        )
    folder = given if given.is_dir() else given.parent
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if given.is_dir() else []
    models = [path for path in (folder, *inside) if is_scvi_model(path) or is_saved_model(path)]
    if models:
        writer = "scvi-tools" if is_scvi_model(models[-1]) else "cellvae"
        holds = "is" if models == [folder] else "holds"
        return (
            f"which {holds} a model that {writer} saved. A model has no optimizer to resume with. "
            f"Load it and train it further: model = cellvae.load('{models[-1]}', adata), then "
            "model.train(...)."
        )
    if given.is_file() or any(given.glob("*.ckpt")):
        return (
            "which is a checkpoint of Lightning, or another file. Checkpoints of Lightning are "
            "pickles, which can run code, and are not read. For a run of scvi-tools, load the "
            "checkpoint there, save the model with model.save(folder), and train it further here: "
            "model = cellvae.load(folder, adata), then model.train(...)."
        )
    return "which has none. Give resume='auto' to start a new run if there is none."


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a model that `save` wrote."""
    return (folder / "model.json").is_file()


def run_identity(model: BaseModel, split: Split) -> dict[str, Any]:
    """Model, data and split of a run as JSON values, which a resumed run must have in common."""
    registration: dict[str, Any] = model.registration.to_json()
    _, *further_axes = registration.pop("axes")
    if further_axes:
        registration["axes"] = further_axes
    config = {f.name: plain_containers(getattr(model.config, f.name)) for f in fields(model.config)}
    names = "\n".join(map(str, model.cell_names))
    cells = np.concatenate([split.train, split.validation, split.test])
    return {
        "model": type(model).__name__,
        "config": config,
        "genes": list(model.registration.genes),
        "data": plain_containers({k: v for k, v in registration.items() if k != "n_cells"}),
        "cells": {
            "number": len(model.cell_names),
            "names": digest(names.encode()),
            "split": digest(np.ascontiguousarray(cells).tobytes()),
        },
        "kept": plain_containers(model.module.frozen_weights.to_json())
        if model.module.frozen_weights
        else None,
        "dtype": str(next(model.module.parameters()).dtype).removeprefix("torch."),
    }


def digest(content: bytes) -> str:
    """Short digest of bytes."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def plain_containers(value: Any) -> Any:
    """Copy of nested mappings, sequences and tensors as dictionaries and lists."""
    return jsonable(value, tensor_as_list)


def tensor_as_list(value: Any, where: str) -> Any:
    """Tensor as a list; any other value unchanged."""
    return value.tolist() if isinstance(value, torch.Tensor) else value


def read_cell_values_of(model: BaseModel, rows: ColumnRows[Any]) -> dict[str, CellValues]:
    """Values of every field that the run reads, by name."""
    found = read_cell_values(model.registration, rows)
    labels = model.training_labels()
    for name in (name for name in found if name.startswith("labels.")):
        if labels is not None:
            # Training reads the labels from the AnnData again when a run begins.
            unknown = len(model.registration.categories("labels")) - 1
            codes = torch.from_numpy(np.where(labels < 0, unknown, labels))
            found[name] = replace(found[name], values=to_smallest_integers(codes))
    return found


def describe_changed_cells(
    model: BaseModel,
    state: TrainingState | None,
    identity: Mapping[str, Any],
    cell_values: Mapping[str, CellValues],
) -> list[str]:
    """A line for each column whose values differ from those in a state of the same cells."""
    if state is None or state.identity["cells"]["names"] != identity["cells"]["names"]:
        return []
    return differing_columns(state.cell_values, cell_values, model.cell_names)

"""Folder of a saved model: writing it, and reading it back."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import metadata
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import Module, Rows
from cellvae.core.frozen_weights import FrozenWeights
from cellvae.core.options import from_kwargs
from cellvae.data import Registration, Split
from cellvae.data.files.h5mu import cell_file_name, read_cells, write_cells
from cellvae.data.setup.fields import Field
from cellvae.errors import CellvaeError, FileFormatError, UnknownKeyError, did_you_mean, quote_names
from cellvae.persistence import (
    Record,
    SavedFiles,
    check_tensors,
    open_saved,
    save_model_files,
    tensor_specs,
)
from cellvae.persistence.training_state import write_state
from cellvae.train.records.history import History
from cellvae.train.records.training_report import TrainingReport
from cellvae.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from cellvae.estimator.base_model import BaseModel


class ModelFolder:
    """Writes the present state of a model, and reads weights back.

    Parameters
    ----------
    model
        The model.
    split
        Split of the present run.
    n_cells
        Number of cells that were split.
    """

    def __init__(self, model: BaseModel, split: Split | None, n_cells: int) -> None:
        self.model = model
        self.split = split
        self.n_cells = n_cells

    def save(self, folder: Path, history: History, training: dict[str, Any]) -> None:
        """Write a checkpoint of a run: a model that is marked as trained."""
        self.write(folder, history, overwrite=True, checkpoint=training)

    def weights(self, folder: Path) -> dict[str, Tensor]:
        """Weights of a saved model, verified by its checksums."""
        return open_saved(folder).tensors()

    def write_state(self, path: Path, values: dict[str, Any]) -> None:
        """Write the state that a run can be resumed from."""
        write_state(path, values)

    def column(self, key: str, adata: AnnData | None = None) -> np.ndarray:
        """Values of a column of `adata.obs`, [cells].

        Raises
        ------
        UnknownKeyError
            If there is no such column.
        """
        cells = self.model.adata if adata is None else adata
        assert cells is not None
        if key not in cells.obs:
            raise UnknownKeyError(
                f"Expected a column of adata.obs; got '{key}'.{did_you_mean(key, cells.obs)}"
            )
        return np.asarray(cells.obs[key])

    def names(self, cells: np.ndarray) -> list[str]:
        """Names of the model's cells at these indices."""
        return [str(name) for name in self.model.cell_names[cells]]

    def setup_key(self, name: str) -> str | None:
        """Value of an argument of `setup_anndata` such as `batch_key`; None if it was not given."""
        key = getattr(self.model.registration.keys, name, None)
        return key if isinstance(key, str) else None

    def read(self, adata: AnnData) -> Rows[Any]:
        """Rows of other cells, genes and categories matched by name."""
        return self.model.read(adata, new=True)

    def write(
        self,
        folder: str | Path,
        history: History,
        *,
        prefix: str = "",
        overwrite: bool = False,
        adata: AnnData | None = None,
        anndata_write_kwargs: Mapping[str, Any] = MappingProxyType({}),
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        """Write all files of the model."""
        model = self.model
        report = model.training_report if checkpoint is None else None
        record = Record(
            model=type(model).__name__,
            library_version=__version__,
            config={f.name: getattr(model.config, f.name) for f in fields(model.config)},
            registration=replace(model.registration, n_cells=self.n_cells).to_json(),
            history=history.to_json(),
            training={
                "is_trained": model.is_trained or checkpoint is not None,
                "report": report.to_json() if report else None,
                "checkpoint": dict(checkpoint) if checkpoint is not None else None,
                **(
                    {"kept": model.module.frozen_weights.to_json()}
                    if model.module.frozen_weights
                    else {}
                ),
            },
            versions={"python": platform.python_version()}
            | {name: metadata.version(name) for name in ("torch", "lightning", "anndata", "numpy")},
        )
        cells = {name: torch.from_numpy(part) for name, part in split_arrays(self.split).items()}
        weights = {
            name: tensor.detach().cpu() for name, tensor in model.module.state_dict().items()
        }
        save_model_files(
            folder,
            record,
            weights,
            cells,
            prefix=prefix,
            overwrite=overwrite,
            write_adata=None
            if adata is None
            else lambda path: write_cells(adata, path, anndata_write_kwargs),
            data_name=cell_file_name(adata),
        )


def split_arrays(split: Split | None) -> dict[str, np.ndarray]:
    """Cell indices of each part of a split; empty before training."""
    if split is None:
        return {}
    return {"train": split.train, "validation": split.validation, "test": split.test}


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A saved model whose files were verified; each part has the type that a model needs."""

    files: SavedFiles

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.files.record.model

    @property
    def is_trained(self) -> bool:
        """Whether the model was trained when it was saved."""
        return self.files.record.training.get("is_trained") is True

    def config(self, cls: type[Any]) -> Any:
        """Options of the model.

        Raises
        ------
        FileFormatError
            If they are not valid options of the model.
        """
        try:
            return from_kwargs(cls, self.files.record.config, "config")
        except CellvaeError as error:
            raise FileFormatError(
                f"Expected the options of a {self.name} in model.json: {error}"
            ) from error

    def registration(
        self, keys: type[Any], fields_of: Callable[[Any], tuple[Field, ...]]
    ) -> Registration[Any]:
        """What was found in the data when it was registered.

        Raises
        ------
        FileFormatError
            If the fields are not those of a model with these keys.
        """
        registration = Registration.from_json(self.files.record.registration, keys)
        expected = {field.name: field for field in fields_of(registration.keys)}
        found = {name: record.field(name) for name, record in registration.fields.items()}
        if found != expected:
            wrong = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
            raise FileFormatError(
                "Expected registration.fields of model.json to be what registration.keys name; "
                f"got others for {quote_names(wrong)}. Use the file that was saved."
            )
        return registration

    def history(self) -> History:
        """Metrics of every epoch."""
        return History.from_json(self.files.record.history)

    def report(self) -> TrainingReport | None:
        """Report of the last run."""
        values = self.files.record.training.get("report")
        if values is None:
            return None
        try:
            return from_kwargs(TrainingReport, dict(values), "report")
        except (CellvaeError, TypeError, ValueError) as error:
            raise FileFormatError(f"Expected a training report in model.json: {error}") from error

    def frozen_weights(self, module: Module[Any]) -> FrozenWeights:
        """Weights that training does not change.

        Raises
        ------
        FileFormatError
            If they are not weights of this network.
        """
        values = self.files.record.training.get("kept")
        return FrozenWeights() if values is None else FrozenWeights.from_json(values, module)

    def split(self, n_cells: int) -> Split | None:
        """Split into cells for training, validation and test.

        Raises
        ------
        FileFormatError
            If they are not distinct cells among those that the model was trained on.
        """
        cells = self.files.cells()
        if not cells:
            return None
        empty = torch.empty(0, dtype=torch.int64)
        parts = {name: cells.get(name, empty).numpy() for name in ("train", "validation", "test")}
        indices = np.concatenate([*parts.values()])
        if not len(parts["train"]) or indices.min() < 0 or indices.max() >= n_cells:
            raise FileFormatError(
                f"Expected indices of training cells below {n_cells:,} in cells.safetensors; "
                "got others. Use the file that was saved."
            )
        if len(np.unique(indices)) < len(indices):
            raise FileFormatError(
                "Expected each cell once in cells.safetensors; got some twice. "
                "Use the file that was saved."
            )
        return Split(**parts)

    def adata(self) -> AnnData | None:
        """Cells saved with the model."""
        path = self.files.adata_path()
        if path is None:
            return None
        cells: AnnData = read_cells(path)
        return cells

    def load_weights_into(self, module: Module[Any]) -> Module[Any]:
        """Load the saved weights into a network on the meta device, once their names are checked.

        Raises
        ------
        FileFormatError
            If names, shapes or types differ.
        """
        check_tensors(self.files.header(), tensor_specs(module.state_dict()))
        module.load_state_dict(self.files.tensors(), strict=True, assign=True)
        return module


def read_model(folder: str | Path, prefix: str = "") -> SavedModel:
    """Saved model in a folder, its files verified by their checksums."""
    return SavedModel(files=open_saved(folder, prefix))

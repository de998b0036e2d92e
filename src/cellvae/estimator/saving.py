"""Files of a model: `save`, `load`, and everything that reads a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import torch

from cellvae.core.files.output_files import check_output_folder
from cellvae.core.options import check_kwargs
from cellvae.data.files.cell_files import CellFiles
from cellvae.errors import CellvaeError, FileFormatError, InvalidOptionError
from cellvae.estimator.base_model import BaseModel
from cellvae.estimator.model_io import ModelFolder, SavedModel, read_model
from cellvae.scvi.export_model import export_scvi_model
from cellvae.scvi.files import check_other_format, is_scvi_model, remove_other_format
from cellvae.scvi.format_hooks import ScviFormatMixin
from cellvae.scvi.import_model import ImportedModel, import_scvi_model
from cellvae.scvi.registry import make_registry
from cellvae.scvi.setup_tables import print_setup_tables

if TYPE_CHECKING:
    from anndata import AnnData

SavedModelType = TypeVar("SavedModelType", bound="SavingMixin")

ANNDATA_WRITE_KWARGS = (
    "as_dense",
    "compression",
    "compression_opts",
    "convert_strings_to_categoricals",
)
"""Keyword arguments of `AnnData.write_h5ad` that `save` passes on."""


class SavingMixin(BaseModel, ScviFormatMixin):
    """A model that can be saved and loaded."""

    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        *,
        format: Literal["cellvae", "scvi-tools"] = "cellvae",
        **anndata_write_kwargs: Any,
    ) -> None:
        """Save the model into a folder of JSON and safetensors files, which hold no code.

        Parameters
        ----------
        dir_path
            Folder; created if it does not exist.
        prefix
            Prefix of the file names, for several models in one folder.
        overwrite
            Whether an existing model is replaced, atomically.
        save_anndata
            Whether the cells are saved too.
        format
            `"scvi-tools"` writes a folder that scvi-tools 1.4 and 1.5 load, with the same weights.
        **anndata_write_kwargs
            Keyword arguments of `AnnData.write_h5ad`; not for cells in backed mode.

        Raises
        ------
        InvalidOptionError
            If a model exists and `overwrite` is False, there are no cells to save, or the path is
            a file.
        UnknownOptionError
            If a keyword is misspelt.
        """
        known = ("prefix", "overwrite", "save_anndata", "format", *ANNDATA_WRITE_KWARGS)
        check_kwargs(anndata_write_kwargs, known, "save()")
        folder = check_output_folder(dir_path, "dir_path")
        if save_anndata and self.adata is None:
            raise InvalidOptionError("save_anndata=True needs cells; the model was loaded without.")
        if save_anndata and isinstance(self.adata, CellFiles):
            raise InvalidOptionError(
                "Expected cells in memory for save_anndata=True; these are in files already. Leave "
                "it out, and load the model with adata=cellvae.data.open_cells(...)."
            )
        adata = self.adata if save_anndata else None
        if format not in ("cellvae", "scvi-tools"):
            raise InvalidOptionError(
                f"Expected format to be 'cellvae' or 'scvi-tools'; got {format!r}."
            )
        check_other_format(folder, prefix or "", format, overwrite=overwrite)
        if format == "scvi-tools":
            if is_scvi_model(folder, prefix or "") and not overwrite:
                raise InvalidOptionError(
                    f"{folder} holds a model of scvi-tools already. Give overwrite=True, or "
                    "another folder."
                )
            export_scvi_model(self, folder, prefix or "", adata)
            remove_other_format(folder, prefix or "", format)
            return
        ModelFolder(self, self.split, self.registration.n_cells).write(
            dir_path,
            self.history,
            prefix=prefix or "",
            overwrite=overwrite,
            adata=adata,
            anndata_write_kwargs=anndata_write_kwargs,
        )
        remove_other_format(folder, prefix or "", format)
        if adata is not None and adata.isbacked:
            # Writing has closed the file of the AnnData, which the old rows still refer to.
            self.attach(adata, new=False)

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
    ) -> Self:
        """Load a model from a folder.

        Parameters
        ----------
        dir_path
            Folder written by :meth:`save`, by a checkpoint, or by scvi-tools. No code in a file is
            run; the history of a model of scvi-tools is not read.
        adata
            Cells for the model; genes are matched by name. None for those saved with it, if any.
        accelerator, device
            Device of the network; `"auto"` is a CUDA device if there is one.
        prefix
            Prefix of the file names.

        Raises
        ------
        FileFormatError
            If files are missing, damaged, or of another model or version.
        DataMismatchError
            If genes or categories of `adata` are not those of the model.
        """
        at = pick_device(accelerator, device)
        if is_scvi_model(dir_path, prefix or ""):
            return load_imported(cls, dir_path, adata, prefix or "", at)
        saved = read_model(dir_path, prefix or "")
        model = cls.from_saved(saved)
        model.to_device(at)
        cells = saved.adata() if adata is None else adata
        if cells is not None:
            model.attach(cells, new=True)
        return model

    @classmethod
    def convert_legacy_save(
        cls,
        dir_path: str | Path,
        output_dir_path: str | Path,
        overwrite: bool = False,
        prefix: str | None = None,
    ) -> None:
        """Convert a model saved by any version of scvi-tools to the format of this package.

        :meth:`load` also reads models of scvi-tools directly, those of versions before 0.15 in
        three files too.

        Parameters
        ----------
        dir_path
            Folder of the model of scvi-tools.
        output_dir_path
            Folder for the converted model, and for the cells that were saved with it.
        overwrite
            Whether an existing model is replaced.
        prefix
            Prefix of the file names, in both folders.

        Raises
        ------
        FileFormatError
            If there is no such model, or its files are damaged.
        InvalidOptionError
            If a model exists and `overwrite` is False.
        """
        model = load_imported(cls, dir_path, None, prefix or "", torch.device("cpu"))
        model.save(output_dir_path, prefix, overwrite, save_anndata=model.adata is not None)

    @classmethod
    def load_reference(cls, dir_path: str | Path, prefix: str = "") -> Self:
        """Load a model on the CPU, without the cells that may be saved with it."""
        if is_scvi_model(dir_path, prefix):
            return cls.from_imported(import_scvi_model(cls, dir_path, prefix))
        return cls.from_saved(read_model(dir_path, prefix))

    @classmethod
    def load_registry(cls, dir_path: str | Path, prefix: str | None = None) -> dict[str, Any]:
        """Registry of a saved model, in the form of scvi-tools."""
        return make_registry(cls.load_reference(dir_path, prefix or ""))

    @classmethod
    def view_setup_args(cls, dir_path: str | Path, prefix: str | None = None) -> None:
        """Print the arguments of `setup_anndata` of a saved model."""
        model = cls.load_reference(dir_path, prefix or "")
        print_setup_tables(cls.__name__, model.registration, categories=False)

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Model with the weights and history of a saved one, without cells; on the CPU.

        Raises
        ------
        FileFormatError
            If it was saved by another model class, or its network cannot be built.
        """
        folder = saved.files.folder
        if saved.name != cls.__name__:
            raise FileFormatError(
                f"Expected a saved {cls.__name__} in {folder}; got a {saved.name}. "
                f"Use {saved.name}.load or cellvae.load."
            )
        config = saved.config(cls.Config)
        registration = saved.registration(cls.Keys, cls.fields)
        model = cls.__new__(cls)
        try:
            with torch.device("meta"):
                module = cls.build(registration, config)
        except (CellvaeError, ValueError, KeyError, RuntimeError) as error:
            raise FileFormatError(
                f"The network that {folder} describes cannot be built: {error}"
            ) from error
        model.assemble(registration, config, saved.load_weights_into(module))
        model.module.freeze(saved.frozen_weights(model.module))
        model.history = saved.history()
        model.split = saved.split(registration.n_cells)
        model.training_report = saved.report()
        model.is_trained = saved.is_trained
        return model

    @classmethod
    def from_imported(cls, imported: ImportedModel) -> Self:
        """Model with the weights of one of scvi-tools, without cells; on the CPU."""
        model = cls.__new__(cls)
        model.assemble(imported.registration, imported.config, imported.module)
        model.is_trained, model.split = imported.is_trained, imported.split
        return model


def load_imported(
    cls: type[SavedModelType],
    folder: str | Path,
    adata: AnnData | None,
    prefix: str,
    device: torch.device,
) -> SavedModelType:
    """Model from a folder of scvi-tools; without `adata`, with the cells saved there."""
    imported = import_scvi_model(cls, folder, prefix)
    model = cls.from_imported(imported)
    model.to_device(device)
    cells = imported.adata() if adata is None else adata
    if cells is not None:
        model.attach(cells, new=True)
    return model


def pick_device(accelerator: str, device: int | str) -> torch.device:
    """Device for a network that is loaded.

    Raises
    ------
    InvalidOptionError
        If there is no such device.
    """
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    device_type = {"gpu": "cuda"}.get(accelerator, accelerator)
    try:
        found = (
            torch.device(device_type)
            if device == "auto" or device_type == "cpu"
            else torch.device(device_type, int(device))
        )
        torch.empty(0, device=found)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InvalidOptionError(
            f"Expected a device of this machine; got accelerator={accelerator!r}, "
            f"device={device!r}: {error}"
        ) from error
    return found

"""What every model has: its class attributes, its set-up, its cells and its network."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import Module, Rows
from cellvae.core.cpu_threads import cpu_threads
from cellvae.core.log import warn, without_messages
from cellvae.core.options import from_kwargs
from cellvae.data import Registration, Split, cell_indices
from cellvae.data.batches.shuffling import as_index_tensor
from cellvae.data.setup.fields import Field
from cellvae.data.setup.keys import keys_from_kwargs, store_keys, stored_keys
from cellvae.data.setup.minified import (
    MinifiedType,
    drop_count_fields,
    minified_record,
    read_minified,
)
from cellvae.data.setup.mudata_keys import MuDataKeys
from cellvae.data.setup.tables.cells import check_is_cells
from cellvae.data.storage.fingerprint import fingerprint
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import DataMismatchError, DataWarning, NotSetUpError, NotTrainedError
from cellvae.estimator.minified_cells import (
    check_has_counts,
    check_minified_by,
    refuse_minified,
)
from cellvae.estimator.setup_method import (
    is_made_of_keys,
    make_setup_anndata,
    make_setup_mudata,
)
from cellvae.scvi.network_attributes import add_network_attributes
from cellvae.train.records.history import History
from cellvae.train.records.training_report import TrainingReport

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.inference.protocols import CellChoice
    from cellvae.train.callbacks.protocols import Callback
    from cellvae.train.resume.optimizer_carryover import OptimizerCarryover


class BaseModel(ABC):
    """Network, options and cells of a model, without training or files.

    :class:`~cellvae.model.Model` adds these; the functions that train, save or describe a model
    need no more of it than this class has.
    """

    Config: ClassVar[type]
    """Options: a frozen dataclass."""
    Keys: ClassVar[type]
    """Keyword arguments of `setup_anndata`: a frozen dataclass."""
    Batch: ClassVar[type]
    """What the network reads of a batch of cells: a named tuple."""
    first_setup_arguments: ClassVar[tuple[str, ...]] = ()
    """Arguments of `setup_anndata` that come first by position, if not those of `Keys`."""
    latent_key: ClassVar[str] = ""
    """Entry of `adata.obsm` for the latent in scvi-tools' tutorials; `X_` and the name by default.
    """

    encoder_class: ClassVar[type[Any] | None] = None
    """Model whose latent this one reads; None for a model that reads the cells themselves."""

    config: Any
    registration: Registration
    module: Module[Any]

    if TYPE_CHECKING:
        # Each class has its own, with the arguments of its keys (`estimator/setup_method.py`).
        @classmethod
        def setup_anndata(cls, adata: AnnData, *args: Any, **kwargs: Any) -> None:
            """Check the data, and record where they are."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "latent_key" not in vars(cls):
            cls.latent_key = f"X_{cls.__name__}"
        cls._add_setup_methods()
        if not hasattr(cls, "Config"):
            return
        # Editors and `help` show the options of the model, which its Config alone declares.
        keyword = inspect.Parameter.KEYWORD_ONLY
        options = [
            inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type)
            for f in fields_of(cls.Config)
        ]
        data = inspect.Parameter("adata", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        cls.__signature__ = inspect.Signature([data, *options])  # type: ignore[attr-defined]

    @classmethod
    def _add_setup_methods(cls) -> None:
        """Make the methods that set cells up of the keys of the class, unless written out."""
        keys = getattr(cls, "Keys", None)
        if keys is None:
            return
        if is_made_of_keys(cls, "setup_anndata"):
            made = make_setup_anndata(cls.__name__, cls.__module__, keys, cls.first_setup_arguments)
            cls.setup_anndata = made  # type: ignore[method-assign]
        reads_mudata = issubclass(keys, MuDataKeys) and keys.mudata_keys
        if reads_mudata and is_made_of_keys(cls, "setup_mudata"):
            made = make_setup_mudata(cls.__name__, cls.__module__, keys)
            cls.setup_mudata = made  # type: ignore[attr-defined]

    def __init__(self, adata: AnnData, **config: Any) -> None:
        name = type(self).__name__
        options: Any = from_kwargs(type(self).Config, config, f"{name}()")
        keys = stored_keys(adata, name, type(self).Keys)
        if keys is None:
            raise NotSetUpError(
                f"Expected an AnnData that was set up for {name}; this one was not. "
                f"Call {name}.setup_anndata(adata, ...) first."
            )
        refuse_minified(adata, "make a model")
        with warnings.catch_warnings(), without_messages():
            # The set-up has already said what it found.
            warnings.simplefilter("ignore", DataWarning)
            registration = Registration.of(adata, keys, self.fields(keys))
        if self.expects_counts(options) and not registration.integers:
            warn(
                "Expected raw counts; got values that are not whole numbers. If the counts are in "
                f"a layer, name it: {name}.setup_anndata(adata, layer=...).",
                DataWarning,
            )
        self.assemble(registration, options, self.build(registration, options))
        self.attach(adata, new=False)
        self.init_from_data(self.module, self.rows_of_model())

    # What a model class defines

    @staticmethod
    @abstractmethod
    def fields(keys: Any) -> tuple[Field, ...]:
        """Fields that the model reads from an AnnData."""

    @staticmethod
    @abstractmethod
    def build(registration: Registration, config: Any) -> Module[Any]:
        """Network for these data and options."""

    @staticmethod
    def expects_counts(config: Any) -> bool:
        """Whether the likelihood is a distribution of whole numbers."""
        return True

    @staticmethod  # noqa: B027
    def init_from_data(module: Any, rows: Any) -> None:
        """Set constants of the network that are computed from the data; most models have none."""

    def required_callbacks(self) -> Sequence[Callback]:
        """Callbacks without which this model cannot be trained; most models need none."""
        return ()

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults of keyword arguments of `train` that differ from those of other models.

        Parameters
        ----------
        kwargs
            Keyword arguments that the user gave.
        """
        return {}

    def cell_tables(self) -> Mapping[str, Any]:
        """Tables of results for all cells, [cells, ...], that the command line stores in `obsm`."""
        return {}

    def feature_tables(
        self, adata: AnnData | None, indices: CellChoice
    ) -> Mapping[str, pd.DataFrame]:
        """Tables of results by feature, by their titles, that the report shows.

        Parameters
        ----------
        adata
            Cells; None for those of the model.
        indices
            Cells to use.
        """
        return {}

    def training_labels(self) -> NDArray[np.int64] | None:
        """Label of each of the model's cells, -1 where unknown; None for a model without labels."""
        return None

    def semisupervised_labels(self) -> NDArray[np.int64] | None:
        """Labels of the cells that training adds to each step for a classifier, -1 where unknown.

        None for a model without labels, and for one whose batches have no field `n_labelled`, in
        which the network finds how many cells were added.
        """
        if "n_labelled" not in getattr(type(self).Batch, "_fields", ()):
            return None
        return self.training_labels()

    # Set-up

    @classmethod
    def keys_of_setup(cls, adata: AnnData, kwargs: Mapping[str, Any]) -> Any:
        """Keys from the arguments of a set-up, without those that were not given.

        Parameters
        ----------
        adata
            Cells, an AnnData or a MuData.
        kwargs
            Values by the name of their key.
        """
        return keys_from_kwargs(kwargs, cls.Keys)

    @classmethod
    def register(cls, adata: AnnData, keys: Any) -> None:
        """Check the data that keys point to, and store the keys in the AnnData."""
        Registration.of(adata, keys, drop_count_fields(cls.fields(keys), minified_record(adata)))
        store_keys(adata, cls.__name__, keys)

    def assemble(self, registration: Registration, config: Any, module: Module[Any]) -> None:
        """Initialize a model that has a network and no cells yet."""
        cpu_threads.limit_to_processors()
        self.registration = registration
        self.config = config
        self.module = module.eval()
        add_network_attributes(module, config, registration)
        self._adata: AnnData | None = None
        self.rows: ColumnRows[Any] | None = None
        self.fingerprint = ""
        self.cell_names: Any = None
        self.split: Split | None = None
        self.history = History()
        self.training_report: TrainingReport | None = None
        self.carryover: OptimizerCarryover | None = None
        self.is_trained = False

    def check_trained(self) -> None:
        """Refuse a model that has not been trained.

        Raises
        ------
        NotTrainedError
            If it has not.
        """
        if not self.is_trained:
            raise NotTrainedError(
                f"Expected a trained model; this {type(self).__name__} is not. Call train() first."
            )

    # Cells

    @property
    def adata(self) -> AnnData | None:
        """Cells of the model; None if it was loaded without cells.

        Another AnnData can be assigned. It is checked as the `adata` argument of a method is: genes
        are matched by name, categories by value, and `setup_anndata` need not be called. The
        AnnData is not changed, nor is the split of earlier training.

        Raises
        ------
        InvalidDataError
            If the value is not an AnnData, or holds values that no model can use.
        UnknownKeyError
            If a column or layer does not exist.
        DataMismatchError
            If genes or categories are not those of the model, which then keeps its old cells.
        """
        return self._adata

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        check_is_cells(adata)
        self.attach(adata, new=True)

    def attach(self, adata: AnnData, *, new: bool) -> None:
        """Make an AnnData that of the model.

        Parameters
        ----------
        adata
            Cells.
        new
            Whether the model sees these cells for the first time, so that counts are checked.

        Raises
        ------
        DataMismatchError
            If genes or categories are not those of the model.
        """
        self.rows = self.read(adata, new=new)
        self.fingerprint = fingerprint(self.rows)
        self._adata, self.cell_names = adata, adata.obs_names

    def read(self, adata: AnnData, *, new: bool) -> ColumnRows[Any]:
        """Rows of an AnnData, its genes and categories matched by name."""
        fields, batch_type = self.fields(self.registration.keys), type(self).Batch
        record = minified_record(adata)
        if record is None:
            return self.registration.read(adata, fields, batch_type, check_counts=new)
        check_minified_by(record, self.module)
        return read_minified(self.registration, adata, record, fields, batch_type, check_counts=new)

    def rows_for(self, adata: AnnData | None) -> ColumnRows[Any]:
        """Rows of an AnnData, or of the model's own cells, for a trained model.

        Raises
        ------
        NotTrainedError
            If the model has not been trained.
        DataMismatchError
            If genes or categories of `adata` are not those of the model, or there are no cells.
        """
        self.check_trained()
        if adata is None or adata is self.adata:
            return self.rows_of_model()
        return self.read(adata, new=True)

    def rows_with_counts(self, adata: AnnData | None) -> Rows[Any]:
        """Rows as from :meth:`rows_for`, refused if their counts were dropped.

        Raises
        ------
        NotTrainedError, DataMismatchError
            As for :meth:`rows_for`, or if the AnnData is minified and has no counts.
        """
        rows = self.rows_for(adata)
        check_has_counts(rows)
        return rows

    def rows_of_model(self) -> ColumnRows[Any]:
        """Rows of the model's own cells, read again if cells of its AnnData were replaced.

        Raises
        ------
        DataMismatchError
            If the model has no cells, its present cells do not fit it, or counts were changed in
            place.
        """
        if self.rows is None or self.adata is None:
            raise DataMismatchError("The model was loaded without cells. Give adata.")
        if not self.adata.obs_names.equals(self.cell_names):
            self.attach(self.adata, new=True)
        elif fingerprint(self.rows) != self.fingerprint:
            raise DataMismatchError(
                "The counts were changed in place after the model was made (normalised?). Keep raw "
                "counts in a layer, adata.layers['counts'] = adata.X.copy(), and name it in "
                "setup_anndata; or put the counts back."
            )
        return self.rows

    def cell_indices(self, adata: AnnData | None, indices: CellChoice) -> Tensor:
        """Indices of the requested cells, in the requested order, [cells]."""
        whole = self.adata if adata is None else adata
        assert whole is not None
        return as_index_tensor(cell_indices(indices, whole))

    @property
    def minified_data_type(self) -> MinifiedType | None:
        """How the model's AnnData is minified; None if it is not."""
        record = None if self.adata is None else minified_record(self.adata)
        return None if record is None else record.data_type

    @property
    def train_indices(self) -> np.ndarray | None:
        """Indices of the training cells; None before training."""
        return None if self.split is None else self.split.train

    @property
    def validation_indices(self) -> np.ndarray | None:
        """Indices of the validation cells; None before training."""
        return None if self.split is None else self.split.validation

    @property
    def test_indices(self) -> np.ndarray | None:
        """Indices of the test cells; None before training."""
        return None if self.split is None else self.split.test

    # Device

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.module.parameters()).device

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the network to a device."""
        self.module.to(torch.device(device))

"""Attributes of models under the names that notebooks of scvi-tools use."""

from __future__ import annotations

from abc import ABCMeta
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any

from cellvae.scvi.format_hooks import ScviFormatMixin
from cellvae.scvi.missing_attributes import no_attribute

if TYPE_CHECKING:
    import numpy as np

    from cellvae.scvi.adata_manager import AnnDataManager
    from cellvae.scvi.registry import AttrDict
    from cellvae.train.records.history import History


class ModelMeta(ABCMeta):
    """Metaclass of models: the error for a missing class attribute says what to use instead."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Any:
            raise no_attribute(cls.__name__, name, dir(cls), cls.missing_methods)


class ScviAttributes(ScviFormatMixin, metaclass=ModelMeta):
    """Attributes by scvi-tools' names, most of which end in an underscore."""

    if TYPE_CHECKING:
        config: Any
        history: History
        is_trained: bool

        @property
        def adata_manager(self) -> AnnDataManager: ...  # noqa: D102
        @property
        def registry(self) -> dict[str, Any]: ...  # noqa: D102
        @property
        def train_indices(self) -> np.ndarray | None: ...  # noqa: D102
        @property
        def validation_indices(self) -> np.ndarray | None: ...  # noqa: D102
        @property
        def test_indices(self) -> np.ndarray | None: ...  # noqa: D102
    else:

        def __getattr__(self, name: str) -> Any:
            cls = type(self)
            if name in self.__dict__ or hasattr(cls, name):
                # A property that raised an AttributeError of its own.
                return object.__getattribute__(self, name)
            options = self.__dict__.get("config")
            if options is not None and name in {field.name for field in fields_of(options)}:
                value = getattr(options, name)
                # For an option of None the network has the value that was derived from the data.
                return getattr(self.module, name, None) if value is None else value
            if name == "protein_state_registry" and "proteins" in self.registration.fields:
                return self.adata_manager.get_state_registry("proteins")
            raise no_attribute(cls.__name__, name, dir(cls), cls.missing_methods)

    @property
    def history_(self) -> History:
        """Same as `history`."""
        return self.history

    @property
    def is_trained_(self) -> bool:
        """Same as `is_trained`."""
        return self.is_trained

    @is_trained_.setter
    def is_trained_(self, is_trained: bool) -> None:
        self.is_trained = is_trained

    @property
    def registry_(self) -> dict[str, Any]:
        """Same as `registry`."""
        return self.registry

    @property
    def summary_stats(self) -> AttrDict:
        """Numbers of cells, genes and categories."""
        return self.adata_manager.summary_stats

    @property
    def train_indices_(self) -> np.ndarray | None:
        """Same as `train_indices`."""
        return self.train_indices

    @property
    def validation_indices_(self) -> np.ndarray | None:
        """Same as `validation_indices`."""
        return self.validation_indices

    @property
    def test_indices_(self) -> np.ndarray | None:
        """Same as `test_indices`."""
        return self.test_indices

    @property
    def init_params_(self) -> dict[str, dict[str, Any]]:
        """Options of the model: all of them are in `["non_kwargs"]`, `["kwargs"]` is empty."""
        options = {field.name: getattr(self.config, field.name) for field in fields_of(self.config)}
        return {"kwargs": {}, "non_kwargs": options}

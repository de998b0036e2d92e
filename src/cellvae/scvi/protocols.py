"""What the functions for scvi-tools' files and names need of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cellvae.contracts import Module
from cellvae.data import Registration, Split
from cellvae.data.setup.fields import Field

if TYPE_CHECKING:
    from anndata import AnnData


class RegisteredModel(Protocol):
    """A model that knows what it reads from an AnnData."""

    registration: Registration[Any]

    @property
    def adata(self) -> AnnData | None:
        """Cells of the model; None if it was loaded without cells."""
        ...

    def fields(self, keys: Any) -> tuple[Field, ...]:
        """Fields that the model reads from an AnnData."""
        ...


class ExportableModel(RegisteredModel, Protocol):
    """A model whose options, weights and split can be written for scvi-tools."""

    config: Any
    module: Module[Any]
    split: Split | None
    is_trained: bool

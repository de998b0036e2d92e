"""What the functions for scvi-tools' files and names need of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor

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
    scvi_exportable: ClassVar[bool]
    cellvae_only_options: ClassVar[tuple[str, ...]]

    def check_scvi_export(self, options: Mapping[str, Any]) -> None:
        """Refuse a model that scvi-tools cannot make."""
        ...

    def scvi_registration(self) -> Registration[Any]:
        """Registration of the model as scvi-tools stores it."""
        ...

    def scvi_placeholder_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that scvi-tools expects in a file although it computes nothing with them."""
        ...

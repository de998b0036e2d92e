"""What a model class says about its counterpart in scvi-tools."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from cellvae.data import Registration


class ScviFormatMixin:
    """Class attributes and methods by which models differ in files and notebooks of scvi-tools.

    A model that scvi-tools does not have needs none of them.
    """

    if TYPE_CHECKING:
        registration: Registration[Any]

    scvi_exportable: ClassVar[bool] = False
    """Whether scvi-tools has a model of this name with the same weights."""
    cellvae_only_options: ClassVar[tuple[str, ...]] = ()
    """Options that scvi-tools does not have: they must be left at their defaults in an export."""
    missing_methods: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Methods of the model in scvi-tools that it does not have here, and what to use instead."""

    def check_scvi_export(self, options: Mapping[str, Any]) -> None:
        """Refuse a model that scvi-tools cannot make.

        Parameters
        ----------
        options
            Options that are not the defaults.

        Raises
        ------
        InvalidOptionError
            If scvi-tools does not have such options or covariates.
        """

    def scvi_registration(self) -> Registration[Any]:
        """Registration of the model as scvi-tools stores it."""
        return self.registration

    def scvi_placeholder_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that scvi-tools expects in a file although it computes nothing with them.

        Parameters
        ----------
        weights
            Weights of the model, by their names in scvi-tools.
        """
        return {}

    @classmethod
    def import_scvi_weights(
        cls, weights: Mapping[str, Tensor], module: nn.Module
    ) -> dict[str, Tensor]:
        """Weights of a file of scvi-tools, with those that older versions did not have.

        Parameters
        ----------
        weights
            Weights of the file, by their names here.
        module
            Network that they are for, without memory.
        """
        return dict(weights)

    @classmethod
    def import_scvi_setup(
        cls, setup: Mapping[str, Any], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Arguments of the set-up of a model of scvi-tools as arguments of this class.

        Parameters
        ----------
        setup
            Arguments of `setup_anndata` or `setup_mudata` by name.
        options
            Options of the model by name.
        """
        return dict(setup)

    @classmethod
    def import_scvi_options(cls, options: Mapping[str, Any], version: str) -> dict[str, Any]:
        """Options of a model of scvi-tools as options of this class.

        Parameters
        ----------
        options
            Options by name.
        version
            Version of scvi-tools that saved the model.
        """
        return dict(options)

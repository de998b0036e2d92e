"""`Model`: the base class of all models, composed of what a model has and what it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.estimator.minify import MinifyMixin
from cellvae.estimator.reporting.run_report import write_report
from cellvae.estimator.reporting.summary import summary
from cellvae.estimator.saving import SavingMixin
from cellvae.estimator.training import TrainingMixin
from cellvae.scvi.attribute_aliases import ScviAttributes
from cellvae.scvi.registry_mixin import RegistryMixin
from cellvae.scvi.setup_tables import print_setup_tables

if TYPE_CHECKING:
    from anndata import AnnData


class Model(TrainingMixin, SavingMixin, MinifyMixin, RegistryMixin, ScviAttributes):
    """Base class of all models: an estimator for the cells of an AnnData.

    A subclass defines its options (`Config`), the keyword arguments of its set-up (`Keys`), its
    batches (`Batch`), the fields that it reads (:meth:`fields`) and its network (:meth:`build`),
    and lists the functions of :mod:`cellvae.inference` that are its methods.
    """

    report = write_report

    @property
    def summary_string(self) -> str:
        """Options, set-up and training of the model, as text."""
        return summary(self)

    def __repr__(self) -> str:
        return summary(self)

    def view_anndata_setup(
        self, adata: AnnData | None = None, hide_state_registries: bool = False
    ) -> None:
        """Print what the model reads from its AnnData, and the categories that it knows.

        Parameters
        ----------
        adata
            Another AnnData to check against the model first.
        hide_state_registries
            Whether the tables of categories are left out.
        """
        if adata is not None:
            self.read(adata, new=True)
        print_setup_tables(
            type(self).__name__, self.registration, categories=not hide_state_registries
        )

"""scVI: a variational autoencoder of counts that removes batch effects (Lopez et al. 2018)."""

from __future__ import annotations

from typing import ClassVar, final

from cellvae.data import Registration
from cellvae.estimator.reference_mapping import ReferenceMappingMixin
from cellvae.inference import (
    differential_expression,
)
from cellvae.model.count_model import CountModel
from cellvae.model.networks.scvi_module import SCVIConfig, SCVIModule, SCVISizes, sizes_of

__all__ = ["SCVI", "SCVIConfig", "SCVIModule", "SCVISizes", "sizes_of"]


@final
class SCVI(ReferenceMappingMixin, CountModel):
    """Variational autoencoder of single-cell counts (scVI).

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`.
    **config
        Options of the network: see :class:`SCVIConfig`.

    Raises
    ------
    NotSetUpError
        If `adata` has not been set up.
    UnknownOptionError, InvalidOptionError
        If an option is misspelt or has an invalid value.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
    >>> model = cellvae.model.SCVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_latent_representation().shape
    (400, 5)

    References
    ----------
    Lopez, Regier, Cole, Jordan, Yosef (2018): Deep generative modeling for single-cell
    transcriptomics. Nature Methods 15, 1053.
    """

    Config: ClassVar[type[SCVIConfig]] = SCVIConfig
    config: SCVIConfig
    module: SCVIModule
    latent_key: ClassVar[str] = "X_scVI"

    differential_expression = differential_expression

    @staticmethod
    def build(registration: Registration, config: SCVIConfig) -> SCVIModule:
        """Network for these data and options."""
        return SCVIModule(sizes_of(registration, config), config)

"""PoissonVI: a variational autoencoder of fragments in regions of chromatin (Martens 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, final

from cellvae.core.log import warn
from cellvae.data import Registration
from cellvae.errors import DataWarning
from cellvae.estimator.reference_mapping import ReferenceMappingMixin
from cellvae.inference import (
    differential_accessibility,
    get_fragment_accessibility,
    get_fragment_factors,
)
from cellvae.model.count_model import CountModel
from cellvae.model.networks.poissonvi_module import POISSONVIConfig, POISSONVIModule
from cellvae.model.networks.scvi_module import sizes_of
from cellvae.model.peakvi import atac_train_defaults


@final
class POISSONVI(ReferenceMappingMixin, CountModel):
    """Variational autoencoder of fragments in regions of chromatin (PoissonVI).

    Read counts are converted to fragments by :func:`cellvae.data.reads_to_fragments`.

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`.
    **config
        Options of the network: see :class:`POISSONVIConfig`.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> cellvae.data.reads_to_fragments(adata)
    >>> cellvae.model.POISSONVI.setup_anndata(adata, layer="fragments", batch_key="batch")
    >>> model = cellvae.model.POISSONVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_normalized_accessibility().shape
    (400, 100)

    References
    ----------
    Martens, Fischer, Yepez, Theis, Gagneur (2024): Modeling fragment counts improves single-cell
    ATAC-seq analysis. Nature Methods 21, 28.
    """

    Config: ClassVar[type[POISSONVIConfig]] = POISSONVIConfig
    config: POISSONVIConfig
    module: POISSONVIModule
    scvi_exportable: ClassVar[bool] = False
    missing_methods: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "differential_expression": (
                "use get_normalized_accessibility and differential_accessibility"
            ),
            "get_library_size_factors": "the observed number of fragments is the library size",
        }
    )

    get_normalized_accessibility = get_fragment_accessibility
    get_region_factors = get_fragment_factors
    differential_accessibility = differential_accessibility

    @staticmethod
    def build(registration: Registration, config: POISSONVIConfig) -> POISSONVIModule:
        """Network for these data and options."""
        n_hidden = config.n_hidden or max(1, math.isqrt(registration.n_genes))
        n_latent = config.n_latent or max(1, math.isqrt(n_hidden))
        sized = replace(config, n_hidden=n_hidden, n_latent=n_latent)
        return POISSONVIModule(sizes_of(registration, config), sized)

    def assemble(self, registration: Registration, config: Any, module: Any) -> None:
        """Initialize a model without cells; warn if its data were zeros and ones."""
        super().assemble(registration, config, module)
        if registration.binary:
            warn(
                "Expected numbers of fragments; got zeros and ones. PEAKVI is made for them; or "
                "give the layer with counts: "
                "POISSONVI.setup_anndata(adata, layer=...).",
                DataWarning,
            )

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults of PEAKVI's training."""
        return atac_train_defaults(kwargs)

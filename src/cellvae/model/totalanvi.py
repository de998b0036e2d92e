"""totalANVI: totalVI that is trained on the labels of some cells and predicts the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Loss
from cellvae.core.frozen_weights import FrozenWeights
from cellvae.core.options import from_kwargs
from cellvae.data import Registration
from cellvae.data.setup.fields import Field
from cellvae.data.setup.fields.protein_keys import (
    ProteinLabelKeys,
    protein_label_fields,
    protein_labels_field,
)
from cellvae.errors import InvalidOptionError
from cellvae.model.components.labelled_model import (
    LabelledModel,
    begin_with_weights,
    cells_of_trained,
    known_labels,
    label_keys,
    labelled_registration,
    merge_configs,
)
from cellvae.model.networks.labelled_module import (
    LabelledModule,
    check_label_options,
    split_labelled,
)
from cellvae.model.networks.totalvi_batch import TOTALVIBatch
from cellvae.model.networks.totalvi_config import TOTALVIConfig, TOTALVISizes
from cellvae.model.networks.totalvi_module import TOTALVIModule
from cellvae.model.totalvi import TOTALVI, sizes_of

if TYPE_CHECKING:
    from anndata import AnnData

LATENT_DROPOUT_RATE = 0.05
"""Dropout rate of the encoder of the second latent, as in scvi-tools."""
FROZEN_AFTER_TOTALVI = (
    "background_pro_alpha",
    "background_pro_log_beta",
    "log_per_batch_efficiency",
)
"""Parameters that stay as a TOTALVI learned them, as in scvi-tools."""


@dataclass(frozen=True, kw_only=True)
class TOTALANVIConfig(TOTALVIConfig):
    """Options of :class:`TOTALANVI`: those of totalVI, and of the classifier.

    Parameters
    ----------
    latent_distribution
        The latent space of the classifier is normal.
    linear_classifier
        Whether the classifier has no hidden layers.
    classifier_parameters
        `n_layers`, `n_hidden`, `dropout_rate`, `use_batch_norm` and `use_layer_norm` of the
        classifier, if they differ from those of the encoder; and `logits`, as of
        :class:`SCANVIConfig`.
    y_prior
        Fraction of each label among all cells, in the order of `model.labels`; None for equal
        fractions.
    """

    latent_distribution: Literal["normal"] = "normal"
    linear_classifier: bool = False
    classifier_parameters: Mapping[str, Any] | None = None
    y_prior: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_label_options(self)


class TOTALANVIModule(LabelledModule, TOTALVIModule):
    """Network of totalANVI: that of totalVI, with the networks of labels.

    The part `kl_div_z` of its loss includes the terms of both latents and of the label.
    """

    accepts_sparse = TOTALVIModule.accepts_sparse
    loss_weights: Mapping[str, float] = MappingProxyType(
        {**TOTALVIModule.loss_weights, "classification_ratio": 50.0}
    )
    config: TOTALANVIConfig

    def __init__(self, sizes: TOTALVISizes, config: TOTALANVIConfig) -> None:
        super().__init__(sizes, config)
        self.add_label_networks(
            config,
            sizes.n_labels,
            n_layers=(config.n_layers_encoder, config.n_layers_decoder),
            dropout=(config.dropout_rate_encoder, LATENT_DROPOUT_RATE),
        )

    def loss(self, batch: TOTALVIBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO, and the cross-entropy of the labelled cells at the end of the batch.

        As in scvi-tools, `kl_weight` does not multiply log q(z1 | x, y) - E log p(z1 | z2, label).
        """
        cells, labelled = split_labelled(batch)
        return self.add_classification(super().loss(cells, kl_weight), labelled)

    def dispersion(self, batch: TOTALVIBatch, log_theta: Tensor, kind: str) -> Tensor:
        """Inverse dispersion of these cells; with labels, their geometric mean where unknown."""
        if not kind.endswith("-label"):
            return super().dispersion(batch, log_theta, kind)
        return self.select_by_label(log_theta, batch.labels).exp()


@final
class TOTALANVI(LabelledModel, TOTALVI):
    """Variational autoencoder of genes and proteins that learns the labels of some cells.

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`, or MuData by :meth:`setup_mudata`.
    **config
        Options of the network: see :class:`TOTALANVIConfig`.

    Raises
    ------
    NotSetUpError
        If `adata` has not been set up.
    UnknownOptionError, InvalidOptionError
        If an option is misspelt or has an invalid value.

    Notes
    -----
    :meth:`train` has the further arguments of :class:`SCANVI`, and logs its metrics.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> cellvae.model.TOTALANVI.setup_anndata(
    ...     adata,
    ...     protein_expression_obsm_key="protein_expression",
    ...     batch_key="batch",
    ...     labels_key="labels",
    ...     unlabeled_category="label_2",
    ... )
    >>> model = cellvae.model.TOTALANVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.predict(soft=True).columns.tolist()
    ['label_0', 'label_1']

    References
    ----------
    Gayoso, Steier, Lopez, Regier, Nazor, Streets, Yosef (2021): Joint probabilistic modeling of
    single-cell multi-omic data with totalVI. Nature Methods 18, 272.

    Xu, Lopez, Mehlman, Regier, Jordan, Yosef (2021): Probabilistic harmonization and annotation of
    single-cell transcriptomics data with deep generative models. Molecular Systems Biology 17,
    e9620.
    """

    Config: ClassVar[type[TOTALANVIConfig]] = TOTALANVIConfig
    Keys: ClassVar[type[ProteinLabelKeys]] = ProteinLabelKeys
    config: TOTALANVIConfig
    module: TOTALANVIModule
    latent_key: ClassVar[str] = "X_totalANVI"
    cellvae_only_options: ClassVar[tuple[str, ...]] = ("y_prior",)

    @classmethod
    def from_totalvi_model(
        cls,
        totalvi_model: TOTALVI,
        unlabeled_category: str,
        labels_key: str | None = None,
        adata: AnnData | None = None,
        **config: Any,
    ) -> TOTALANVI:
        """Model initialized with the weights of a trained TOTALVI, which is not changed.

        As in scvi-tools, what was learned of panels and batches of proteins stays as it is: the
        prior of the background and the capture efficiencies.

        Parameters
        ----------
        totalvi_model
            Trained TOTALVI.
        unlabeled_category
            Value of the labels for cells whose label is not known.
        labels_key
            Column of `obs` with labels; required.
        adata
            Cells; None for those of the TOTALVI.
        **config
            Options of the classifier, such as `linear_classifier`; all others are the TOTALVI's.

        Raises
        ------
        NotTrainedError
            If the TOTALVI has not been trained.
        DataMismatchError
            If features or categories of `adata` are not those of the TOTALVI, or counts were
            dropped.
        UnknownOptionError, InvalidOptionError
            If an option is misspelt, differs from that of the TOTALVI, or there is no `labels_key`.
        """
        adata = cells_of_trained(TOTALVI, totalvi_model, adata, "totalvi_model")
        options = from_kwargs(
            cls.Config, merge_configs(totalvi_model, config), "from_totalvi_model()"
        )
        keys = label_keys(totalvi_model, cls.Keys, labels_key, unlabeled_category, adata)
        registration = labelled_registration(totalvi_model, keys, protein_labels_field(keys), adata)
        weights = dict(totalvi_model.module.state_dict())
        n_labels = len(known_labels(registration))
        for name, kind in (
            ("px_r", options.gene_dispersion),
            ("py_r", options.protein_dispersion),
        ):
            if kind.endswith("-label"):
                # A TOTALVI knows one label: that of all cells.
                weights[name] = weights[name].expand(-1, n_labels)
        model = begin_with_weights(cls, totalvi_model, weights, registration, options, adata)
        model.module.freeze(FrozenWeights(parameters=FROZEN_AFTER_TOTALVI))
        return model

    @staticmethod
    def fields(keys: ProteinLabelKeys) -> tuple[Field, ...]:  # type: ignore[override]
        """Fields that the model reads from an AnnData or a MuData."""
        return protein_label_fields(keys)

    @staticmethod
    def build(  # type: ignore[override]
        registration: Registration, config: TOTALANVIConfig
    ) -> TOTALANVIModule:
        """Network for these data and options."""
        sizes = replace(sizes_of(registration, config), n_labels=len(known_labels(registration)))
        return TOTALANVIModule(sizes, config)

    def check_scvi_export(self, options: Mapping[str, Any]) -> None:
        """Refuse a model that scvi-tools cannot make.

        Raises
        ------
        InvalidOptionError
            If it was set up with a MuData.
        """
        if self.registration.keys.modalities:
            raise InvalidOptionError(
                "TOTALANVI of scvi-tools does not read labels of a MuData. Save without format."
            )

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Few epochs if the weights were initialized with those of a trained TOTALVI."""
        return self.pretrained_defaults(kwargs)

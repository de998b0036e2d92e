"""scANVI: scVI that is trained on the labels of some cells and predicts the others (Xu 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Loss
from cellvae.core.options import from_kwargs
from cellvae.data import Registration
from cellvae.data.setup.fields import Field, label_fields, labels_field
from cellvae.data.setup.keys import LabelKeys
from cellvae.errors import InvalidOptionError
from cellvae.estimator.reference_mapping import ReferenceMappingMixin
from cellvae.inference import differential_expression
from cellvae.model.components.labelled_model import (
    LabelledModel,
    begin_with_weights,
    cells_of_trained,
    known_labels,
    label_keys,
    labelled_registration,
    merge_configs,
)
from cellvae.model.count_model import CountBatch, CountModel
from cellvae.model.networks.labelled_module import (
    LabelledModule,
    check_label_options,
    split_labelled,
)
from cellvae.model.scvi import SCVI, SCVIConfig, SCVIModule, SCVISizes, sizes_of

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, kw_only=True)
class SCANVIConfig(SCVIConfig):
    """Options of :class:`SCANVI`: those of scVI, and of the classifier.

    Parameters
    ----------
    n_layers
        Hidden layers of encoder, decoder and classifier, and of the networks between the two
        latent spaces.
    latent_distribution
        The latent space of the classifier is normal.
    linear_classifier
        Whether the classifier has no hidden layers.
    classifier_parameters
        `n_layers`, `n_hidden`, `dropout_rate`, `use_batch_norm` and `use_layer_norm` of the
        classifier, if they differ from those of the other networks; and `logits`. With
        `logits=False` it returns probabilities, which the loss uses as logits, as in scvi-tools
        (all models did before its version 1.1): labels have less weight in training.
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


class SCANVIModule(LabelledModule, SCVIModule):
    """Network of scANVI: that of scVI, with the networks of labels (:class:`LabelledModule`)."""

    accepts_sparse = SCVIModule.accepts_sparse
    loss_weights: Mapping[str, float] = MappingProxyType({"classification_ratio": 50.0})
    config: SCANVIConfig

    def __init__(self, sizes: SCVISizes, config: SCANVIConfig) -> None:
        super().__init__(sizes, config)
        self.add_label_networks(
            config,
            sizes.n_labels,
            n_layers=(config.n_layers, config.n_layers),
            dropout=(config.dropout_rate, config.dropout_rate),
        )

    def loss(self, batch: CountBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO, and the cross-entropy of the labelled cells at the end of the batch.

        As in scvi-tools all KL terms are weighted, that of the library size too, and the
        reconstruction includes log q(z1 | x) - E log p(z1 | z2, y).
        """
        batch, labelled = split_labelled(batch)
        latent = self.encode(batch)
        latent_term, kl = self.latent_kl_terms(latent.posterior, latent.sample)
        reconstruction = latent_term - self.log_likelihood(latent, batch)
        kl = kl + self.kl_library(latent, batch)
        loss = Loss(
            loss=(reconstruction + kl_weight * kl).mean(),
            reconstruction={"reconstruction_loss": reconstruction},
            kl_local={"kl_local": kl},
            kl_global=reconstruction.new_zeros(()),
            latent=latent.sample,
        )
        return self.add_classification(loss, labelled)

    def log_dispersion(self, batch: CountBatch, decoded: Tensor | None) -> Tensor:
        """Log inverse dispersion; its mean over labels for cells whose label is unknown."""
        if self.px_r is None or self.config.dispersion != "gene-label":
            return super().log_dispersion(batch, decoded)
        return self.select_by_label(self.px_r, batch.labels)


@final
class SCANVI(LabelledModel, ReferenceMappingMixin, CountModel):
    """Variational autoencoder of counts that learns the labels of some cells and predicts others.

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`.
    **config
        Options of the network: see :class:`SCANVIConfig`.

    Raises
    ------
    NotSetUpError
        If `adata` has not been set up.
    UnknownOptionError, InvalidOptionError
        If an option is misspelt or has an invalid value.

    Notes
    -----
    :meth:`train` has further arguments: `n_samples_per_label`, the number of labelled cells of each
    label in an epoch (resampled for each; all by default), and
    `plan_kwargs={"classification_ratio": 50}`, the weight of the labels in the loss. It logs
    `validation_accuracy`, `validation_f1_score`, `validation_classification_loss` and
    `validation_calibration_error`, and the same for `train`, all of which can be monitored.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> cellvae.model.SCANVI.setup_anndata(
    ...     adata, labels_key="labels", unlabeled_category="label_2", batch_key="batch"
    ... )
    >>> model = cellvae.model.SCANVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.predict(soft=True).columns.tolist()
    ['label_0', 'label_1']

    References
    ----------
    Xu, Lopez, Mehlman, Regier, Jordan, Yosef (2021): Probabilistic harmonization and annotation of
    single-cell transcriptomics data with deep generative models. Molecular Systems Biology 17,
    e9620.
    """

    Config: ClassVar[type[SCANVIConfig]] = SCANVIConfig
    Keys: ClassVar[type[LabelKeys]] = LabelKeys
    config: SCANVIConfig
    module: SCANVIModule
    cellvae_only_options: ClassVar[tuple[str, ...]] = (*CountModel.cellvae_only_options, "y_prior")
    latent_key: ClassVar[str] = "X_scANVI"

    differential_expression = differential_expression

    @classmethod
    def from_scvi_model(
        cls,
        scvi_model: SCVI,
        unlabeled_category: str,
        labels_key: str | None = None,
        adata: AnnData | None = None,
        **config: Any,
    ) -> SCANVI:
        """Model initialized with the weights of a trained SCVI, which is not changed.

        Parameters
        ----------
        scvi_model
            Trained SCVI.
        unlabeled_category
            Value of the labels for cells whose label is not known.
        labels_key
            Column of `adata.obs` with labels; None for that of the SCVI.
        adata
            Cells; None for those of the SCVI.
        **config
            Options of the classifier, such as `linear_classifier`; all others are the SCVI's.

        Raises
        ------
        NotTrainedError
            If the SCVI has not been trained.
        DataMismatchError
            If genes or categories of `adata` are not those of the SCVI, or counts were dropped.
        UnknownOptionError, InvalidOptionError
            If an option is misspelt, differs from that of the SCVI, or there is no `labels_key`.
        """
        adata = cells_of_trained(SCVI, scvi_model, adata, "scvi_model")
        options = from_kwargs(cls.Config, merge_configs(scvi_model, config), "from_scvi_model()")
        keys = label_keys(scvi_model, LabelKeys, labels_key, unlabeled_category, adata)
        known = scvi_model.registration
        registration = labelled_registration(scvi_model, keys, labels_field(keys), adata)
        weights = dict(scvi_model.module.state_dict())
        if options.dispersion == "gene-label":
            if keys.labels_key != known.keys.labels_key:
                raise InvalidOptionError(
                    f"Expected labels_key='{known.keys.labels_key}', by which the dispersion of "
                    f"the SCVI differs; got '{keys.labels_key}'."
                )
            order = [known.categories("labels").index(v) for v in known_labels(registration)]
            weights["px_r"] = weights["px_r"][:, order]
        return begin_with_weights(cls, scvi_model, weights, registration, options, adata)

    def check_scvi_export(self, options: Mapping[str, Any]) -> None:
        """Refuse a dispersion that scvi-tools' SCANVI does not have."""
        if options.get("dispersion") == "gene-label":
            raise InvalidOptionError(
                "scvi-tools cannot make a SCANVI with dispersion='gene-label'. Save without format."
            )

    @classmethod
    def import_scvi_options(cls, options: Mapping[str, Any], version: str) -> dict[str, Any]:
        """Options of a SCANVI of scvi-tools, whose classifier gave probabilities before 1.1."""
        number = re.match(r"(\d+)\.(\d+)", version)
        if number is None or (int(number[1]), int(number[2])) >= (1, 1):
            return dict(options)
        classifier = options.get("classifier_parameters") or {}
        return {**options, "classifier_parameters": {"logits": False, **classifier}}

    @staticmethod
    def fields(keys: LabelKeys) -> tuple[Field, ...]:
        """Columns that the model reads."""
        return label_fields(keys)

    @staticmethod
    def build(registration: Registration, config: SCANVIConfig) -> SCANVIModule:
        """Network for these data and options."""
        sizes = replace(sizes_of(registration, config), n_labels=len(known_labels(registration)))
        return SCANVIModule(sizes, config)

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Few epochs if the weights were initialized with those of a trained SCVI."""
        return self.pretrained_defaults(kwargs)

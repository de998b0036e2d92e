"""scANVI: scVI that is trained on the labels of some cells and predicts the others (Xu 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import CountLatent, Loss
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.options import check_kwargs, check_value, from_kwargs
from cellvae.data import Registration
from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.fields import Field, label_fields, labels_field
from cellvae.data.setup.keys import CountKeys, LabelKeys, keys_from_kwargs, store_keys
from cellvae.data.setup.obs_columns import label_text
from cellvae.distributions import kl_to_standard_normal
from cellvae.errors import DataMismatchError, InvalidOptionError
from cellvae.estimator.minified_cells import refuse_minified
from cellvae.estimator.reference_mapping import ReferenceMappingMixin
from cellvae.inference import (
    differential_expression,
    predict,
)
from cellvae.model.count_model import CountBatch, CountModel
from cellvae.model.scvi import SCVI, SCVIConfig, SCVIModule, SCVISizes, sizes_of
from cellvae.nn import Classifier, Encoder, NormalDecoder
from cellvae.nn.classification_metrics import (
    METRICS,
    ClassificationSums,
    classification_metrics,
    classification_sums,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

CLASSIFIER_OPTIONS: Mapping[str, tuple[Any, Mapping[str, float]]] = MappingProxyType(
    {
        "n_layers": (int, {"at_least": 0, "at_most": 128}),
        "n_hidden": (int, {"at_least": 0, "at_most": 65_536}),
        "dropout_rate": (float, {"at_least": 0, "at_most": 0.999}),
        "use_batch_norm": (bool, {}),
        "use_layer_norm": (bool, {}),
        "logits": (bool, {}),
    }
)
"""Keys of `classifier_parameters`, with their types and bounds."""


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
        given = dict(self.classifier_parameters or {})
        check_kwargs(given, CLASSIFIER_OPTIONS, "classifier_parameters")
        for name, value in given.items():
            hint, bounds = CLASSIFIER_OPTIONS[name]
            given[name] = check_value(f"classifier_parameters['{name}']", value, hint, bounds)
        if self.classifier_parameters is not None:
            object.__setattr__(self, "classifier_parameters", given)
        if self.y_prior is not None and (
            not all(fraction > 0 for fraction in self.y_prior) or abs(sum(self.y_prior) - 1) > 1e-3
        ):
            raise InvalidOptionError(
                f"Expected y_prior to be fractions above 0 that sum to 1; got {self.y_prior}."
            )


class SCANVIModule(SCVIModule):
    """Network of scANVI.

    The prior of the latent z1, from which counts are decoded, depends on the label y: it is decoded
    from y and a second, standard normal latent z2. A classifier predicts the label of a cell from
    z1 (Xu et al. 2021; Kingma et al. 2014, M1 + M2). Names of parameters are those of scvi-tools.
    """

    accepts_sparse = SCVIModule.accepts_sparse
    extra_metric_names = METRICS
    label_networks = ("encoder_z2_z1", "decoder_z1_z2")
    loss_weights: Mapping[str, float] = MappingProxyType({"classification_ratio": 50.0})
    config: SCANVIConfig
    y_prior: Tensor

    def __init__(self, sizes: SCVISizes, config: SCANVIConfig) -> None:
        super().__init__(sizes, config)
        batch_norm = config.use_batch_norm in ("encoder", "both")
        layer_norm = config.use_layer_norm in ("encoder", "both")
        classifier_options: dict[str, Any] = {
            "n_layers": 0 if config.linear_classifier else config.n_layers,
            "n_hidden": config.n_hidden,
            "dropout_rate": config.dropout_rate,
            "use_batch_norm": batch_norm,
            "use_layer_norm": layer_norm,
            **(config.classifier_parameters or {}),
        }
        self.classifier = Classifier(config.n_latent, sizes.n_labels, **classifier_options)
        self.encoder_z2_z1 = Encoder(
            config.n_latent,
            config.n_latent,
            (sizes.n_labels,),
            n_layers=config.n_layers,
            n_hidden=config.n_hidden,
            dropout_rate=config.dropout_rate,
            use_batch_norm=batch_norm,
            use_layer_norm=layer_norm,
        )
        self.decoder_z1_z2 = NormalDecoder(
            config.n_latent,
            config.n_latent,
            (sizes.n_labels,),
            n_layers=config.n_layers,
            n_hidden=config.n_hidden,
            use_batch_norm=config.use_batch_norm in ("decoder", "both"),
            use_layer_norm=config.use_layer_norm in ("decoder", "both"),
        )
        prior = config.y_prior or (1 / sizes.n_labels,) * sizes.n_labels
        if len(prior) != sizes.n_labels:
            raise InvalidOptionError(
                f"Expected y_prior to have a fraction for each of the {sizes.n_labels} labels; "
                f"got {len(prior)}."
            )
        self.register_buffer("y_prior", torch.tensor([prior]))

    @property
    def gives_logits(self) -> bool:
        """Whether the scores of :meth:`classify` are logits, not probabilities."""
        return self.classifier.logits

    def classify(
        self, batch: CountBatch, *, use_posterior_mean: bool = True
    ) -> Float[Tensor, "cells labels"]:
        """Logit of each label for each cell, or its probability if not `gives_logits`."""
        latent = self.encode(batch)
        z = latent.posterior.loc if use_posterior_mean else latent.sample
        scores: Tensor = self.classifier(z)
        return scores

    def loss(self, batch: CountBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO, and the cross-entropy of the labelled cells at the end of the batch.

        As in scvi-tools all KL terms are weighted, that of the library size too, and the
        reconstruction includes log q(z1 | x) - E log p(z1 | z2, y).
        """
        labelled = None
        if batch.n_labelled:
            batch, labelled = split_labelled(batch)
        latent = self.encode(batch)
        latent_term, kl = self.latent_kl_terms(latent)
        reconstruction = latent_term - self.log_likelihood(latent, batch)
        kl = kl + self.kl_library(latent, batch)
        loss = (reconstruction + kl_weight * kl).mean()
        extra: tuple[Tensor, ...] = ()
        if labelled is not None:
            labels = labelled.labels.squeeze(-1)
            scores = self.classify(labelled)
            cross_entropy = torch.nn.functional.cross_entropy(scores, labels)
            loss = loss + self.loss_weights["classification_ratio"] * cross_entropy
            extra = tuple(classification_sums(scores, labels, logits=self.gives_logits))
        return Loss(
            loss=loss,
            reconstruction={"reconstruction_loss": reconstruction},
            kl_local={"kl_local": kl},
            kl_global=reconstruction.new_zeros(()),
            latent=latent.sample,
            extra_metrics=extra,
        )

    def latent_kl_terms(
        self, latent: CountLatent
    ) -> tuple[Float[Tensor, " cells"], Float[Tensor, " cells"]]:
        """Terms of z1 and z2 in the ELBO, with the label of each cell marginalised out.

        Returns
        -------
        log q(z1 | x) - E log p(z1 | z2, y); and KL(q(z2 | z1, y) || p(z2)) + KL(q(y | z1) || p(y)),
        both in expectation over q(y | z1).
        """
        z1 = latent.sample
        n_cells, n_labels = len(z1), self.sizes.n_labels
        log_probs = self.classifier.log_probabilities(z1)
        probs = log_probs.exp()
        z1s = z1.repeat(n_labels, 1)
        codes = torch.arange(n_labels, device=z1.device).repeat_interleave(n_cells).unsqueeze(-1)
        qz2 = self.encoder_z2_z1(z1s, [codes])
        pz1 = self.decoder_z1_z2(qz2.rsample(), [codes])

        def by_label(values: Tensor) -> Tensor:
            return values.sum(dim=-1).view(n_labels, n_cells).T

        kl_z2 = by_label(kl_to_standard_normal(qz2))
        log_prior_z1 = by_label(pz1.log_prob(z1s))
        kl_y = (probs * (log_probs - self.y_prior.log())).sum(dim=-1)
        log_posterior_z1 = latent.posterior.log_prob(z1).sum(dim=-1)
        return (
            log_posterior_z1 - (probs * log_prior_z1).sum(dim=-1),
            (probs * kl_z2).sum(dim=-1) + kl_y,
        )

    def log_dispersion(self, batch: CountBatch, decoded: Tensor | None) -> Tensor:
        """Log inverse dispersion; its mean over labels for cells whose label is unknown."""
        if self.px_r is None or self.config.dispersion != "gene-label":
            return super().log_dispersion(batch, decoded)
        by_label = torch.cat([self.px_r, self.px_r @ self.y_prior.T], dim=1)
        return torch.nn.functional.embedding(batch.labels.squeeze(-1), by_label.T)

    def metrics_from_sums(self, sums: tuple[Tensor, ...]) -> dict[str, Float[Tensor, ""]]:
        """Classification metrics of an epoch."""
        return classification_metrics(ClassificationSums(*sums))


def split_labelled(batch: CountBatch) -> tuple[CountBatch, CountBatch]:
    """Batch without the labelled cells at its end, and the labelled cells."""
    n = len(batch.labels) - batch.n_labelled

    def split(values: Any) -> tuple[Any, Any]:
        if isinstance(values, CSRBatch):
            return values.slice_cells(0, n), values.slice_cells(n, values.n_cells)
        return (values[:n], values[n:]) if isinstance(values, Tensor) else (values, values)

    parts = [split(values) for values in batch]
    cells, labelled = (CountBatch(*part) for part in zip(*parts, strict=True))
    return cells._replace(n_labelled=0), labelled._replace(n_labelled=0)


@final
class SCANVI(ReferenceMappingMixin, CountModel):
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
    was_pretrained = False
    """Whether the weights were initialized with those of a trained SCVI."""

    predict = predict
    differential_expression = differential_expression

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        labels_key: str,
        unlabeled_category: str,
        layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
    ) -> None:
        """Check the counts, and record which columns hold labels, batch and covariates.

        Only these arguments are stored, in `adata.uns["cellvae"]`; nothing else is changed.

        Parameters
        ----------
        adata
            Cells, with raw counts in `X` or in a layer.
        labels_key
            Column of `adata.obs` with the label of each cell, where it is known.
        unlabeled_category
            Value of that column for cells whose label is not known; missing values count as well.
            No cell needs to have it.
        layer
            Layer that holds the raw counts; None for `X`.
        batch_key
            Column of `adata.obs` with the batch of each cell.
        size_factor_key
            Column of `adata.obs` with the library size of each cell, used in place of the sum of
            its counts.
        categorical_covariate_keys
            Columns of `adata.obs` with further categories to correct for.
        continuous_covariate_keys
            Columns of `adata.obs` with numbers to correct for.

        Raises
        ------
        UnknownKeyError
            If a column or layer does not exist.
        InvalidDataError
            If counts are missing, infinite or negative, no cell has a label, another key column
            has missing values, or gene names repeat.
        """
        kwargs = {
            "layer": layer,
            "batch_key": batch_key,
            "labels_key": labels_key,
            "unlabeled_category": label_text(adata, labels_key, unlabeled_category),
            "size_factor_key": size_factor_key,
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
        }
        cls.register(adata, keys_from_kwargs(kwargs, LabelKeys))

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
        if not isinstance(scvi_model, SCVI):
            raise InvalidOptionError(
                f"Expected scvi_model to be an SCVI; got {type(scvi_model).__name__}."
            )
        scvi_model.check_trained()
        adata = scvi_model.adata if adata is None else adata
        if adata is None:
            raise DataMismatchError("The SCVI was loaded without cells. Give adata.")
        refuse_minified(adata, "make a model")
        options = from_kwargs(
            cls.Config, merge_configs(scvi_model.config, config), "from_scvi_model()"
        )
        keys = label_keys(scvi_model.registration.keys, labels_key, unlabeled_category, adata)
        known = scvi_model.registration
        registration: Registration[LabelKeys] = Registration(
            axes=known.axes,
            n_cells=int(adata.n_obs),
            fields={**known.fields, "labels": labels_field(keys).describe(adata)},
            keys=keys,
        )
        model = cls.__new__(cls)
        module = cls.build(registration, options)
        weights = dict(scvi_model.module.state_dict())
        if options.dispersion == "gene-label":
            if keys.labels_key != known.keys.labels_key:
                raise InvalidOptionError(
                    f"Expected labels_key='{known.keys.labels_key}', by which the dispersion of "
                    f"the SCVI differs; got '{keys.labels_key}'."
                )
            order = [known.categories("labels").index(v) for v in known_labels(registration)]
            weights["px_r"] = weights["px_r"][:, order]
        module.load_state_dict(module.state_dict() | weights)
        model.assemble(registration, options, module.to(scvi_model.device))
        model.attach(adata, new=True)
        store_keys(adata, cls.__name__, keys)
        model.was_pretrained = True
        return model

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
        from cellvae.train.options.default_epochs import default_epochs

        if not self.was_pretrained or self.rows is None or kwargs.get("reset"):
            return {}
        return {"max_epochs": min(10, max(2, round(default_epochs(len(self.rows)) / 3)))}

    # Labels

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """Labels that the model can predict, in the order of its probabilities."""
        return known_labels(self.registration)

    @property
    def n_labels(self) -> int:
        """Number of labels that the model can predict."""
        return len(self.labels)

    @property
    def unlabeled_category(self) -> Scalar:
        """Value of the label column for cells whose label is unknown."""
        return self.registration.categories("labels")[-1]

    @property
    def unlabeled_category_(self) -> Scalar:
        """Same as `unlabeled_category`, under scvi-tools' name."""
        return self.unlabeled_category

    @property
    def original_label_key(self) -> str | None:
        """Column of `adata.obs` with the labels, under scvi-tools' name."""
        key: str | None = self.registration.keys.labels_key
        return key

    @property
    def labels_(self) -> NDArray[Any]:
        """Label of each of the model's cells in `adata.obs`, under scvi-tools' name, [cells].

        Raises
        ------
        DataMismatchError
            If the model has no cells.
        """
        if self.adata is None:
            raise DataMismatchError("The model was loaded without cells. Load it with adata=...")
        return self.adata.obs[self.original_label_key].to_numpy()

    @property
    def _labeled_indices(self) -> NDArray[np.int64]:
        """Same as `labeled_indices`; notebooks of scvi-tools read it under this name."""
        return self.labeled_indices

    @property
    def _unlabeled_indices(self) -> NDArray[np.int64]:
        """Same as `unlabeled_indices`; notebooks of scvi-tools read it under this name."""
        return self.unlabeled_indices

    @property
    def labeled_indices(self) -> NDArray[np.int64]:
        """Indices of the cells whose label is known."""
        return np.flatnonzero(self.training_labels() >= 0)

    @property
    def unlabeled_indices(self) -> NDArray[np.int64]:
        """Indices of the cells whose label is unknown."""
        return np.flatnonzero(self.training_labels() < 0)

    def training_labels(self) -> NDArray[np.int64]:
        """Label of each of the model's cells, -1 where it is unknown, [cells]."""
        if self.adata is None:
            return np.zeros(0, dtype=np.int64)
        record: Any = self.registration.fields["labels"]
        codes = labels_field(self.registration.keys).category_codes(self.adata, record)
        return np.where(codes < self.n_labels, codes, -1)


def known_labels(registration: Registration[Any]) -> tuple[Scalar, ...]:
    """Labels without the category of unlabelled cells."""
    return registration.categories("labels")[:-1]


def merge_configs(config: SCVIConfig, own: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an SCVI and those of the classifier.

    Raises
    ------
    InvalidOptionError
        If one of them differs from that of the SCVI.
    """
    scvi_options = {f.name: getattr(config, f.name) for f in fields(SCVIConfig)}
    for name, value in own.items():
        if name in scvi_options and value != scvi_options[name]:
            raise InvalidOptionError(
                f"Expected {name} to be that of the SCVI, {scvi_options[name]!r}; got {value!r}. "
                "Leave it out, or train an SCVI with it."
            )
    return {**scvi_options, **own}


def label_keys(
    keys: CountKeys, labels_key: str | None, unlabeled_category: object, adata: AnnData
) -> LabelKeys:
    """Keys of an SCVI with those of the labels."""
    column = keys.labels_key if labels_key is None else labels_key
    if column is None:
        raise InvalidOptionError(
            "Expected labels_key, since the SCVI was set up without labels. Give "
            "labels_key=<column of adata.obs>."
        )
    unlabeled = label_text(adata, column, unlabeled_category)
    kwargs = {**keys.to_json(), "labels_key": column, "unlabeled_category": unlabeled}
    return keys_from_kwargs(kwargs, LabelKeys)

"""Networks of semi-supervised models: a classifier, and a prior that depends on the label."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Normal

from cellvae.contracts import GenerativeModule, Loss
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.options import Options, check_kwargs, check_value
from cellvae.distributions import kl_to_standard_normal
from cellvae.errors import InvalidOptionError
from cellvae.nn import Classifier, Encoder, NormalDecoder
from cellvae.nn.classification_metrics import (
    METRICS,
    ClassificationSums,
    classification_metrics,
    classification_sums,
)

B = TypeVar("B", bound=tuple[Any, ...])

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


class LabelledModule(GenerativeModule[Any]):
    """Part of a network that explains a normal latent z1 by a label and a second latent.

    The prior of the latent z1, from which counts are decoded, depends on the label y: it is decoded
    from y and a second, standard normal latent z2. A classifier predicts the label of a cell from
    z1 (Xu et al. 2021; Kingma et al. 2014, M1 + M2). Names of parameters are those of scvi-tools.
    """

    extra_metric_names = METRICS
    label_networks = ("encoder_z2_z1", "decoder_z1_z2")
    frozen_by: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {"freeze_classifier": ("classifier",)}
    )
    classifier: Classifier
    encoder_z2_z1: Encoder
    decoder_z1_z2: NormalDecoder
    y_prior: Tensor

    def add_label_networks(
        self, config: Any, n_labels: int, *, n_layers: tuple[int, int], dropout: tuple[float, float]
    ) -> None:
        """Create the classifier, the networks between both latents and the prior of the labels.

        Parameters
        ----------
        config
            Options of the model.
        n_labels
            Number of labels, without that of unlabelled cells.
        n_layers
            Hidden layers of classifier and encoder, and of the decoder.
        dropout
            Dropout rates of the classifier and of the encoder.
        """
        batch_norm = config.use_batch_norm in ("encoder", "both")
        layer_norm = config.use_layer_norm in ("encoder", "both")
        classifier_options: dict[str, Any] = {
            "n_layers": 0 if config.linear_classifier else n_layers[0],
            "n_hidden": config.n_hidden,
            "dropout_rate": dropout[0],
            "use_batch_norm": batch_norm,
            "use_layer_norm": layer_norm,
            **(config.classifier_parameters or {}),
        }
        self.classifier = Classifier(config.n_latent, n_labels, **classifier_options)
        self.encoder_z2_z1 = Encoder(
            config.n_latent,
            config.n_latent,
            (n_labels,),
            n_layers=n_layers[0],
            n_hidden=config.n_hidden,
            dropout_rate=dropout[1],
            use_batch_norm=batch_norm,
            use_layer_norm=layer_norm,
        )
        self.decoder_z1_z2 = NormalDecoder(
            config.n_latent,
            config.n_latent,
            (n_labels,),
            n_layers=n_layers[1],
            n_hidden=config.n_hidden,
            use_batch_norm=config.use_batch_norm in ("decoder", "both"),
            use_layer_norm=config.use_layer_norm in ("decoder", "both"),
        )
        prior = config.y_prior or (1 / n_labels,) * n_labels
        if len(prior) != n_labels:
            raise InvalidOptionError(
                f"Expected y_prior to have a fraction for each of the {n_labels} labels; "
                f"got {len(prior)}."
            )
        self.register_buffer("y_prior", torch.tensor([prior]))

    @property
    def gives_logits(self) -> bool:
        """Whether the scores of :meth:`classify` are logits, not probabilities."""
        return self.classifier.logits

    def classify(
        self, batch: Any, *, use_posterior_mean: bool = True
    ) -> Float[Tensor, "cells labels"]:
        """Logit of each label for each cell, or its probability if not `gives_logits`."""
        latent: Any = self.encode(batch)
        z = latent.posterior.loc if use_posterior_mean else latent.sample
        scores: Tensor = self.classifier(z)
        return scores

    def add_classification(self, loss: Loss, labelled: Any) -> Loss:
        """Loss with the weighted cross-entropy of the labelled cells, if there are any."""
        if labelled is None:
            return loss
        labels = labelled.labels.squeeze(-1)
        scores = self.classify(labelled)
        cross_entropy = torch.nn.functional.cross_entropy(scores, labels)
        return loss._replace(
            loss=loss.loss + self.loss_weights["classification_ratio"] * cross_entropy,
            extra_metrics=tuple(classification_sums(scores, labels, logits=self.gives_logits)),
        )

    def latent_kl_terms(
        self, posterior: Normal, z1: Float[Tensor, "cells latent"]
    ) -> tuple[Float[Tensor, " cells"], Float[Tensor, " cells"]]:
        """Terms of z1 and z2 in the ELBO, with the label of each cell marginalised out.

        Parameters
        ----------
        posterior
            q(z1 | x), [cells, latent].
        z1
            Sample from it.

        Returns
        -------
        log q(z1 | x) - E log p(z1 | z2, y); and KL(q(z2 | z1, y) || p(z2)) + KL(q(y | z1) || p(y)),
        both in expectation over q(y | z1).
        """
        n_cells, n_labels = len(z1), self.y_prior.shape[1]
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
        log_posterior_z1 = posterior.log_prob(z1).sum(dim=-1)
        return (
            log_posterior_z1 - (probs * log_prior_z1).sum(dim=-1),
            (probs * kl_z2).sum(dim=-1) + kl_y,
        )

    def select_by_label(
        self, weight: Float[Tensor, "features labels"], labels: Int[Tensor, "cells 1"]
    ) -> Float[Tensor, "cells features"]:
        """Values of the label of each cell; their mean over labels where it is unknown."""
        by_label = torch.cat([weight, weight @ self.y_prior.T], dim=1)
        return torch.nn.functional.embedding(labels.squeeze(-1), by_label.T)

    def metrics_from_sums(self, sums: tuple[Tensor, ...]) -> dict[str, Float[Tensor, ""]]:
        """Classification metrics of an epoch."""
        return classification_metrics(ClassificationSums(*sums))


def check_label_options(config: Options) -> None:
    """Check `classifier_parameters` and `y_prior` of the options of a model.

    Raises
    ------
    UnknownOptionError, InvalidOptionError
        If an option of the classifier is misspelt or has an invalid value, or the fractions of the
        labels do not sum to one.
    """
    options: Any = config
    given = dict(options.classifier_parameters or {})
    check_kwargs(given, CLASSIFIER_OPTIONS, "classifier_parameters")
    for name, value in given.items():
        hint, bounds = CLASSIFIER_OPTIONS[name]
        given[name] = check_value(f"classifier_parameters['{name}']", value, hint, bounds)
    if options.classifier_parameters is not None:
        object.__setattr__(config, "classifier_parameters", given)
    if options.y_prior is not None and (
        not all(fraction > 0 for fraction in options.y_prior)
        or abs(sum(options.y_prior) - 1) > 1e-3
    ):
        raise InvalidOptionError(
            f"Expected y_prior to be fractions above 0 that sum to 1; got {options.y_prior}."
        )


def split_labelled(batch: B) -> tuple[B, B | None]:
    """Batch without the labelled cells at its end, and the labelled cells, if there are any."""
    whole: Any = batch
    if not whole.n_labelled:
        return batch, None
    n = len(whole.labels) - whole.n_labelled

    def split(values: Any) -> tuple[Any, Any]:
        if isinstance(values, CSRBatch):
            return values.slice_cells(0, n), values.slice_cells(n, values.n_cells)
        return (values[:n], values[n:]) if isinstance(values, Tensor) else (values, values)

    parts = [split(values) for values in batch]
    cells, labelled = (type(whole)(*part) for part in zip(*parts, strict=True))
    return cells._replace(n_labelled=0), labelled._replace(n_labelled=0)

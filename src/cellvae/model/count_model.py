"""Base class of the models of counts: scVI and the models that share its batches and methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from cellvae.data import CountKeys
from cellvae.data.setup.fields import Field, count_fields
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import InvalidOptionError, quote_names
from cellvae.estimator.model import Model
from cellvae.inference import (
    differential_abundance,
    get_aggregated_posterior,
    get_batch_representation,
    get_elbo,
    get_feature_correlation_matrix,
    get_importance_weights,
    get_latent_library_size,
    get_latent_representation,
    get_likelihood_parameters,
    get_marginal_ll,
    get_normalized_expression,
    get_reconstruction_error,
    posterior_predictive_sample,
)
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.components.library_prior import library_stats_by_batch
from cellvae.model.components.scvi_placeholders import (
    decoder_placeholders,
    library_encoder_placeholders,
)

__all__ = ["CountBatch", "CountModel"]


class CountModel(Model):
    """Model of counts with batches and covariates, whose network derives from scVI's.

    A subclass defines `Config`, :meth:`build` and its class docstring, and lists further methods.
    """

    Keys: ClassVar[type[CountKeys]] = CountKeys
    Batch: ClassVar[type[CountBatch]] = CountBatch
    scvi_exportable: ClassVar[bool] = True
    cellvae_only_options: ClassVar[tuple[str, ...]] = ("var_activation",)

    scvi_values: ClassVar[Mapping[str, tuple[Any, ...]] | None] = None
    """Options of the class in scvi-tools by name, and those values of each that it knows, if it
    does not know all (an empty tuple); None if it knows whatever this one does.
    """
    scvi_keys: ClassVar[tuple[str, ...]] = ()
    """Arguments of `setup_anndata` that it knows, where `scvi_values` are given."""

    get_latent_representation = get_latent_representation
    get_elbo = get_elbo
    get_reconstruction_error = get_reconstruction_error
    get_marginal_ll = get_marginal_ll
    get_aggregated_posterior = get_aggregated_posterior
    differential_abundance = differential_abundance
    get_importance_weights = get_importance_weights
    get_batch_representation = get_batch_representation
    get_normalized_expression = get_normalized_expression
    posterior_predictive_sample = posterior_predictive_sample
    get_likelihood_parameters = get_likelihood_parameters
    get_latent_library_size = get_latent_library_size
    get_feature_correlation_matrix = get_feature_correlation_matrix

    @staticmethod
    def fields(keys: Any) -> tuple[Field, ...]:
        """Fields that the model reads from an AnnData."""
        return count_fields(keys)

    @staticmethod
    def expects_counts(config: Any) -> bool:
        """Whether the likelihood is a distribution of whole numbers."""
        return bool(config.gene_likelihood != "normal")

    @staticmethod
    def init_from_data(module: Any, rows: ColumnRows[CountBatch]) -> None:
        """Set mean and variance of the log library size of each batch, where it is latent."""
        if module.l_encoder is not None:
            means, variances = library_stats_by_batch(rows, module.sizes.n_batch)
            module.library_log_means.copy_(means)
            module.library_log_vars.copy_(variances)

    def check_scvi_export(self, options: Mapping[str, Any]) -> None:
        """Refuse options and keys that the class in scvi-tools does not have."""
        known = self.scvi_values
        if known is None:
            return
        unknown = [name for name in options if name not in known]
        unknown += [name for name in self.registration.keys.to_json() if name not in self.scvi_keys]
        unknown += [
            n for n, values in known.items() if values and options.get(n, values[0]) not in values
        ]
        if unknown:
            raise InvalidOptionError(
                f"The {type(self).__name__} of scvi-tools does not take {quote_names(unknown)}. "
                "Save without format."
            )

    def scvi_placeholder_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that scvi-tools expects in a file although it computes nothing with them."""
        return library_encoder_placeholders(weights, self.config.n_hidden) | decoder_placeholders(
            self.registration, self.config
        )

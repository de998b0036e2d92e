"""Functions of a trained model, which the classes of models have as methods."""

from cellvae.inference.accessibility.normalized_accessibility import (
    get_fragment_accessibility,
    get_fragment_factors,
    get_normalized_accessibility,
)
from cellvae.inference.accessibility.region_factors import get_depth_factors, get_region_factors
from cellvae.inference.criticism.criticism_report import create_criticism_report
from cellvae.inference.criticism.posterior_predictive_check import PosteriorPredictiveCheck
from cellvae.inference.differential import differential_accessibility, differential_expression
from cellvae.inference.doublets.doublet_calls import (
    call_doublets,
    get_doublet_rate,
    predict_doublets,
)
from cellvae.inference.expression.correlation import get_feature_correlation_matrix
from cellvae.inference.expression.library_size import get_latent_library_size
from cellvae.inference.expression.likelihood_parameters import get_likelihood_parameters
from cellvae.inference.expression.loadings import get_loadings
from cellvae.inference.expression.normalized_expression import get_normalized_expression
from cellvae.inference.labels.predict import predict
from cellvae.inference.latent.aggregated_posterior import get_aggregated_posterior
from cellvae.inference.latent.batch_embedding import get_batch_representation
from cellvae.inference.latent.differential_abundance import differential_abundance
from cellvae.inference.latent.latent_representation import get_latent_representation
from cellvae.inference.likelihood.elbo import get_elbo, get_reconstruction_error
from cellvae.inference.likelihood.importance_weights import get_importance_weights
from cellvae.inference.likelihood.marginal_likelihood import get_marginal_ll
from cellvae.inference.likelihood.posterior_predictive import posterior_predictive_sample
from cellvae.inference.sharing.share_cells import share_cells
from cellvae.inference.topics import get_feature_by_topic, get_perplexity, get_topic_proportions

__all__ = [
    "PosteriorPredictiveCheck",
    "call_doublets",
    "create_criticism_report",
    "differential_abundance",
    "differential_accessibility",
    "differential_expression",
    "get_aggregated_posterior",
    "get_batch_representation",
    "get_depth_factors",
    "get_doublet_rate",
    "get_elbo",
    "get_feature_by_topic",
    "get_feature_correlation_matrix",
    "get_fragment_accessibility",
    "get_fragment_factors",
    "get_importance_weights",
    "get_latent_library_size",
    "get_latent_representation",
    "get_likelihood_parameters",
    "get_loadings",
    "get_marginal_ll",
    "get_normalized_accessibility",
    "get_normalized_expression",
    "get_perplexity",
    "get_reconstruction_error",
    "get_region_factors",
    "get_topic_proportions",
    "posterior_predictive_sample",
    "predict",
    "predict_doublets",
    "share_cells",
]


def __dir__() -> list[str]:
    return sorted(__all__)

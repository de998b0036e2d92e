"""What users ask of a trained model: free functions that a model lists as its abilities."""

from cellvae.inference.abundance import differential_abundance
from cellvae.inference.accessibility import (
    get_fragment_accessibility,
    get_fragment_factors,
    get_normalized_accessibility,
)
from cellvae.inference.aggregated import get_aggregated_posterior
from cellvae.inference.batches import get_batch_representation
from cellvae.inference.correlation import get_feature_correlation_matrix
from cellvae.inference.criticism import PosteriorPredictiveCheck
from cellvae.inference.criticism_report import create_criticism_report
from cellvae.inference.differential import differential_accessibility, differential_expression
from cellvae.inference.elbo import get_elbo, get_reconstruction_error
from cellvae.inference.expression import get_normalized_expression
from cellvae.inference.factors import get_depth_factors, get_region_factors
from cellvae.inference.importance import get_importance_weights
from cellvae.inference.labels import predict
from cellvae.inference.latent import get_latent_representation
from cellvae.inference.library_size import get_latent_library_size
from cellvae.inference.loadings import get_loadings
from cellvae.inference.marginal import get_marginal_ll
from cellvae.inference.parameters import get_likelihood_parameters
from cellvae.inference.simulate import posterior_predictive_sample
from cellvae.inference.topics import get_feature_by_topic, get_perplexity, get_topic_proportions

__all__ = [
    "PosteriorPredictiveCheck",
    "create_criticism_report",
    "differential_abundance",
    "differential_accessibility",
    "differential_expression",
    "get_aggregated_posterior",
    "get_batch_representation",
    "get_depth_factors",
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
]


def __dir__() -> list[str]:
    return sorted(__all__)

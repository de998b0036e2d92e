"""What users ask of a trained model: free functions that a model lists as its abilities."""

from cellvae.inference.elbo import get_elbo, get_reconstruction_error
from cellvae.inference.latent import get_latent_representation

__all__ = ["get_elbo", "get_latent_representation", "get_reconstruction_error"]

"""Latent representations, and densities in the latent space."""

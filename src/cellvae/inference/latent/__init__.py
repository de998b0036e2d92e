"""Latent representations and densities in latent space."""

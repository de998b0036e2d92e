"""Scores of a latent space, from plain arrays."""

from cellvae.evaluation.neighbours import batch_mixing, knn_accuracy
from cellvae.evaluation.silhouette import silhouette

__all__ = ["batch_mixing", "knn_accuracy", "silhouette"]

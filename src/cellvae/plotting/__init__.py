"""Figures from plain tables and arrays."""

from cellvae.plotting.embedding import embedding
from cellvae.plotting.training_curves import training_curve, training_curves

__all__ = ["embedding", "training_curve", "training_curves"]

"""Differential expression: cells to compare, draws for them, probabilities, a table."""

from cellvae.inference.differential.differential_accessibility import differential_accessibility
from cellvae.inference.differential.differential_expression import differential_expression

__all__ = ["differential_accessibility", "differential_expression"]

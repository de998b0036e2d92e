"""Differential expression and accessibility of groups of cells."""

from cellvae.inference.differential.accessibility import differential_accessibility
from cellvae.inference.differential.expression import differential_expression

__all__ = ["differential_accessibility", "differential_expression"]

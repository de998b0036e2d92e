"""Posterior predictive checks of a model."""

"""Posterior predictive checks."""

"""Kernels of log-probabilities, with their gradients."""

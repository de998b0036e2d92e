"""Kernels of layers: linear maps, normalisation, activation and dropout."""

"""Kernels for CUDA devices, compiled by Triton at first use; this package imports no Triton."""

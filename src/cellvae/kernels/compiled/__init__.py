"""Kernels compiled by numba; the functions of `cellvae.kernels` call them."""

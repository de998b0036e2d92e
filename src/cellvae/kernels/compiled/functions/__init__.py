"""Compiled functions that several kernels call."""

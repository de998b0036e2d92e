"""Normalized expression, its correlation, and the parameters of the likelihood."""

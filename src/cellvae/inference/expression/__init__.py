"""Normalized expression and what follows from it."""

"""Predicted labels and what they depend on."""

"""Doublets: features that a classifier reads, scores, rates and calls."""

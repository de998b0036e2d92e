"""Scores computed during training."""

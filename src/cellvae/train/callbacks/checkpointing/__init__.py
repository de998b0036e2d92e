"""Checkpoints of models and of runs."""

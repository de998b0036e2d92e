"""Scores of the integration of batches and the separation of labels."""

"""Predicted labels, and their attribution to genes."""

"""Scores of integration."""

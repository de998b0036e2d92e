"""Accessibility of regions."""

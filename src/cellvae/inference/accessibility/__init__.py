"""Accessibility of regions, and factors of their detection."""

"""Cells that are kept somewhere, taken by number: in memory, or on disk."""

"""Command-line program over the public API."""

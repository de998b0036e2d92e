"""Command-line program, built on the public API."""

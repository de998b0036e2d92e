"""What a run records: history and report."""

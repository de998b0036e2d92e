"""State of a run, for resuming it."""

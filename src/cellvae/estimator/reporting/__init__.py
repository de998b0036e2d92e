"""What a model says about itself: its summary, and the report of its run."""

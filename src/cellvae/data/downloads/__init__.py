"""Files of published data sets: where they come from, and where they are kept."""

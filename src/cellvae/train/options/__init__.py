"""Options of a training run and their translation from keyword arguments."""

"""Networks of the models, with their options and batches."""

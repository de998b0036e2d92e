"""Progress, metrics, resources and messages of a run."""

"""Schedules of learning rates and stages of a run."""

"""Adapters of the operating system and of torch: forks, memory, names that are not public."""

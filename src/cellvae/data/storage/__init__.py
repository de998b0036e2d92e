"""Values of the cells in memory, on disk or on a device, read by cell indices."""

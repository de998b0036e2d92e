"""Files of cells."""

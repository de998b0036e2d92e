"""Objects that a pickle may create when nothing in it may run: plain values and stubs."""

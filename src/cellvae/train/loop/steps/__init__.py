"""Steps: what one batch changes, in the network and beside it."""

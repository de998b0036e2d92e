"""What every other folder of the package builds on."""

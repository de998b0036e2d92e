"""Files and names of scvi-tools."""

"""Keys that `setup_anndata` and `setup_mudata` were given, and the fields that they name."""

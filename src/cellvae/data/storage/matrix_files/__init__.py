"""Count matrices in h5ad files and zarr stores, read as runs of consecutive cells in CSR form."""

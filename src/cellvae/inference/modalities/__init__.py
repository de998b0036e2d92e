"""Questions about models of genes, regions of chromatin and proteins."""

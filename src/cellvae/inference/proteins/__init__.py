"""Questions about models of genes and surface proteins."""

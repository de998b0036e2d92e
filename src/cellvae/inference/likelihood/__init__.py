"""ELBO, marginal likelihood, and samples of the likelihood."""

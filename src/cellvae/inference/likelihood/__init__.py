"""ELBO, marginal likelihood, importance weights, and posterior predictive samples."""

"""Log-probabilities as autograd functions, and the series that they use."""

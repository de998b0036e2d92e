"""Log-probabilities, divergences and samplers on tensors."""

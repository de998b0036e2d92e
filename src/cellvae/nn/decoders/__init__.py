"""Decoders: from a latent representation to the parameters of a distribution."""

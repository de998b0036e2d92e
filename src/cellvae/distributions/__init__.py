"""Distributions of the values that a cell was measured to have."""

from cellvae.distributions.bag_of_words import BagOfWords
from cellvae.distributions.beta_binomial import BetaBinomial
from cellvae.distributions.divergence import kl_to_standard
from cellvae.distributions.mixture import NegativeBinomialMixture
from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.distributions.normal import Normal
from cellvae.distributions.poisson import Poisson
from cellvae.distributions.zero_inflated import ZeroInflatedNegativeBinomial

__all__ = [
    "BagOfWords",
    "BetaBinomial",
    "NegativeBinomial",
    "NegativeBinomialMixture",
    "Normal",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
    "kl_to_standard",
]

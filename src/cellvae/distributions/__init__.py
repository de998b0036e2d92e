"""Probability distributions of counts and other measurements of cells."""

from cellvae.distributions.beta_binomial import BetaBinomial
from cellvae.distributions.mixture import NegativeBinomialMixture
from cellvae.distributions.multinomial import BagOfWords
from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.distributions.normal import Normal, kl_to_standard_normal
from cellvae.distributions.poisson import Poisson
from cellvae.distributions.zero_inflated import ZeroInflatedNegativeBinomial
from cellvae.errors import missing_name_error

__all__ = [
    "BagOfWords",
    "BetaBinomial",
    "NegativeBinomial",
    "NegativeBinomialMixture",
    "Normal",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
    "kl_to_standard_normal",
]

NO_MODEL = "no model here uses this distribution"
INSTEAD = {
    "JaxNegativeBinomialMeanDisp": "use NegativeBinomial, which is of torch",
    "Log1pNormal": f"{NO_MODEL}; use torch.distributions.LogNormal of the values plus 1",
    "ZeroInflatedGamma": f"{NO_MODEL}; use torch.distributions.Gamma",
    "ZeroInflatedLogNormal": f"{NO_MODEL}; use torch.distributions.LogNormal",
}
"""Names of scvi-tools that cellvae does not have, with an alternative for each."""


def __getattr__(name: str) -> object:
    raise missing_name_error("cellvae.distributions", name, INSTEAD, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)

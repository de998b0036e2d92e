"""Distributions of the values that a cell was measured to have."""

from cellvae.distributions.beta_binomial import BetaBinomial
from cellvae.distributions.functional.kl import kl_to_standard_normal
from cellvae.distributions.mixture import NegativeBinomialMixture
from cellvae.distributions.multinomial import BagOfWords
from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.distributions.normal import Normal
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

NO_MODEL = "no model here has values of this distribution"
INSTEAD = {
    "JaxNegativeBinomialMeanDisp": "use NegativeBinomial, which is of torch",
    "Log1pNormal": f"{NO_MODEL}; use torch.distributions.LogNormal of the values plus 1",
    "ZeroInflatedGamma": f"{NO_MODEL}; use torch.distributions.Gamma",
    "ZeroInflatedLogNormal": f"{NO_MODEL}; use torch.distributions.LogNormal",
}
"""Parts of scvi-tools that are not here, and what to use in their place."""


def __getattr__(name: str) -> object:
    raise missing_name_error("cellvae.distributions", name, INSTEAD, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Posterior predictive checks of models, under the name that scvi-tools has for them."""

from cellvae.inference.criticism.criticism_report import create_criticism_report
from cellvae.inference.criticism.posterior_predictive_check import PosteriorPredictiveCheck

__all__ = ["PosteriorPredictiveCheck", "create_criticism_report"]


def __dir__() -> list[str]:
    return sorted(__all__)

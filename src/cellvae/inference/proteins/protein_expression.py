"""Denoised protein expression, from the mixture of background and foreground counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cellvae.distributions import NegativeBinomialMixture
from cellvae.errors import InvalidOptionError, quote_names

if TYPE_CHECKING:
    from cellvae.inference.protocols import DecoderModel


class ProteinOptions(NamedTuple):
    """How protein expression is read from the decoded mixture.

    Rates are those of the likelihood, capture efficiency included.
    """

    proteins: Tensor | None = None
    """Positions of the requested proteins; None for all."""
    sample_mixing: bool = False
    """Whether a count is of the background or not is sampled, in place of its probability."""
    scale: bool = False
    """Whether the proteins of a cell are divided by their sum."""
    include_background: bool = False
    """Whether the background is included."""

    def expression(
        self, counts: NegativeBinomialMixture
    ) -> Float[Tensor, "*samples cells proteins"]:
        """Expected foreground counts of the requested proteins; a fraction of the cell if scaled.

        Gayoso et al. 2021, equation (7): the foreground rate times its probability.
        """
        background = counts.mixture_probs
        if self.sample_mixing:
            background = torch.bernoulli(background)
        values = counts.mu2 * (1 - background)
        if self.include_background:
            values = values + counts.mu1 * background
        if self.scale:
            values = functional.normalize(values, p=1, dim=-1)
        return self.select(values)

    def foreground_probability(
        self, counts: NegativeBinomialMixture
    ) -> Float[Tensor, "*samples cells proteins"]:
        """Probability that a count of a requested protein is not background."""
        return self.select((-counts.mixture_logits).sigmoid())

    def select(self, values: Tensor) -> Tensor:
        """Values of the requested proteins."""
        return values if self.proteins is None else values[..., self.proteins.to(values.device)]


def protein_names(model: DecoderModel) -> tuple[str, ...]:
    """Names of the proteins of a model.

    Raises
    ------
    InvalidOptionError
        If the model has no proteins.
    """
    if "proteins" not in model.registration.axes:
        raise InvalidOptionError(
            "Expected a model that was set up with proteins; this one has "
            f"{quote_names([*model.registration.axes])}."
        )
    names: tuple[str, ...] = model.registration.axes["proteins"].features
    return names

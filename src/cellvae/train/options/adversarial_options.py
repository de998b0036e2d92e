"""Options of the adversarial classifier of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cellvae.core.options import Options, option


@dataclass(frozen=True, kw_only=True)
class AdversarialOptions(Options):
    """The adversarial classifier, which the latent variables are trained to fool.

    Parameters
    ----------
    classifier
        Whether an adversarial classifier of the batches reads the latent variables; `"auto"` where
        the model needs one.
    scale
        Weight of the adversarial losses; `"auto"` for 1 minus the KL weight.
    """

    classifier: bool | Literal["auto"] | None = "auto"
    scale: float | Literal["auto"] = option("auto", at_least=0)

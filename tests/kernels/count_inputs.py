"""Counts and parameters for tests of log-likelihoods, and the exact results."""

from __future__ import annotations

import torch
from torch import Tensor

from cellvae.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial

N_CELLS, N_GENES = 37, 61
LIKELIHOODS = ("zinb", "nb", "poisson")


def inputs(likelihood: str, *, per_cell: bool = False) -> dict[str, Tensor | None]:
    torch.manual_seed(0)
    counts = torch.poisson(torch.distributions.Gamma(0.3, 0.1).sample((N_CELLS, N_GENES)))
    counts[0] = 0
    counts[1, :5] = torch.tensor([3000.0, 20_000.0, 2.5, 0.25, 1e6])
    shape = (N_CELLS, N_GENES) if per_cell else (N_GENES,)
    return {
        "counts": counts,
        "logits": 2 * torch.randn(N_CELLS, N_GENES),
        "log_library": counts.sum(-1, keepdim=True).clamp(min=1).log() + 0.5,
        "theta": None if likelihood == "poisson" else (2 * torch.randn(shape)).exp(),
        "dropout": 3 * torch.randn(N_CELLS, N_GENES) if likelihood == "zinb" else None,
    }


def exact(given: dict[str, Tensor | None], weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-likelihood and gradients by the distributions, in double precision."""
    wide = {k: v.double().requires_grad_(k != "counts") for k, v in given.items() if v is not None}
    mu = wide["log_library"].exp() * wide["logits"].softmax(-1)
    if "dropout" in wide:
        counts = ZeroInflatedNegativeBinomial(mu=mu, theta=wide["theta"], zi_logits=wide["dropout"])
    elif "theta" in wide:
        counts = NegativeBinomial(mu=mu, theta=wide["theta"])
    else:
        counts = Poisson(rate=mu)
    value = counts.log_prob(wide["counts"]).sum(-1)
    (value * weight).sum().backward()
    return value.detach(), {k: v.grad for k, v in wide.items() if v.grad is not None}

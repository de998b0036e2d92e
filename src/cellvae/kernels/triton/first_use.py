"""Log-probability of counts on a device by a kernel that is compared with torch when first used."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module, util
from os import environ
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.core.log import logger, warn
from cellvae.errors import TrainingWarning
from cellvae.kernels.layers.lazy_linear import LazyLinear, materialize
from cellvae.kernels.triton.device_log_prob import device_count_log_prob

MIN_MEAN, MAX_INVERSE_DISPERSION = 1e-20, 1e15
MAX_VALUE_DIFFERENCE = 1e-4
"""Largest difference of the log-probability of a cell, as a fraction of 1 plus its size."""
MAX_GRADIENT_DIFFERENCE = 1e-3
"""Largest norm of the difference of a gradient, as a fraction of its norm."""
MAX_ROUNDING_ERROR = 1e-6
"""Largest rounding error of the gradient of a library size, as a fraction of the counts.

The derivatives of the genes of a cell, which it sums, may cancel: all of them do if the
distribution is Poisson's and the library size is the total of the counts.
"""

compared: set[Any] = set()
"""Kinds of use for which the kernel agreed with torch."""
failed: dict[torch.device, str] = {}
"""Devices on which the kernel is not used any more, and why."""


def is_available(device: torch.device) -> bool:
    """Whether the kernel can be used on a device: Triton is there, and it has not failed."""
    return device not in failed and can_import(device.type)


@cache
def can_import(device_type: str) -> bool:
    """Whether Triton is installed and compiles for a device; for CPU tensors it may interpret."""
    if device_type != "cuda" and environ.get("TRITON_INTERPRET") != "1":
        return False
    if util.find_spec("triton") is None:
        return False
    try:
        import_module("cellvae.kernels.triton.operator")
    except Exception as failure:
        logger.info("Triton cannot be used here, torch is used instead: %s", failure)
        return False
    return True


def checked_count_log_prob(
    counts: Float[Tensor, "cells genes"],
    logits: Float[Tensor, "cells genes"] | LazyLinear,
    log_library: Float[Tensor, "cells 1"],
    theta: Float[Tensor, " genes"] | Float[Tensor, "cells genes"] | None = None,
    dropout: Float[Tensor, "cells genes"] | LazyLinear | None = None,
) -> Float[Tensor, " cells"]:
    """As :func:`~cellvae.kernels.triton.device_log_prob.device_count_log_prob`, once it was seen.

    The first batch of each kind is computed by torch too, in double precision, with its gradients.
    Where they differ, torch's result is returned, one `TrainingWarning` says what differed, and the
    kernel is not used on this device any more. Nothing is read from the device after that.
    """
    given = (counts, logits, log_library, theta, dropout)
    kind = (
        counts.device,
        counts.shape[1],
        None if theta is None else theta.ndim,
        dropout is None,
        torch.is_grad_enabled(),
    )
    if kind in compared:
        return device_count_log_prob(*given)
    if counts.device in failed or is_capturing(counts.device) or not len(counts):
        return torch_count_log_prob(*given)
    try:
        difference = find_difference(*given)
    except Exception as failure:
        logger.info("The kernel of Triton cannot run, torch is used instead: %s", failure)
        failed[counts.device] = f"{type(failure).__name__}: {failure}"
        return torch_count_log_prob(*given)
    if difference is None:
        return torch_count_log_prob(*given)
    if difference:
        failed[counts.device] = difference
        warn(
            f"The log-likelihood of counts is computed by torch on {counts.device}, since the "
            f"faster kernel gave another result for the first batch: {difference}. "
            'cellvae.settings.kernels = "torch" leaves the kernel out from the start.',
            TrainingWarning,
        )
        return torch_count_log_prob(*given)
    compared.add(kind)
    return device_count_log_prob(*given)


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured, so that nothing can be read from the device."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def torch_count_log_prob(
    counts: Tensor,
    logits: Tensor | LazyLinear,
    log_library: Tensor,
    theta: Tensor | None = None,
    dropout: Tensor | LazyLinear | None = None,
) -> Float[Tensor, " cells"]:
    """Log-probability of the counts of each cell by torch, in double precision, in nats.

    In the form of the textbook: log-gamma functions of torch, whose large terms cancel.
    """
    x = counts.double()
    fractions = materialize(logits).double().softmax(dim=-1)
    mu = (log_library.double().exp() * fractions).clamp(min=MIN_MEAN)
    if theta is None:
        log_prob = x * mu.log() - mu - (x + 1).lgamma()
    else:
        t = theta.double().clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
        gammas = (x + t).lgamma() - t.lgamma() - (x + 1).lgamma()
        log_prob = gammas - t * (mu / t).log1p() + x * (mu / (t + mu)).log()
    if dropout is not None:
        zero = materialize(dropout).double()
        inflated = torch.where(x == 0, torch.logaddexp(zero, log_prob), log_prob)
        log_prob = inflated - torch.nn.functional.softplus(zero)
    return log_prob.sum(dim=-1).to(counts.dtype)


def find_difference(
    counts: Tensor,
    logits: Tensor | LazyLinear,
    log_library: Tensor,
    theta: Tensor | None,
    dropout: Tensor | LazyLinear | None,
) -> str | None:
    """What differs between kernel and torch for a batch; empty if nothing does.

    None if torch's result is not finite, which tells nothing. Linear layers are computed once.
    """
    given = {
        "logits": materialize(logits),
        "log_library": log_library,
        "theta": theta,
        "dropout": None if dropout is None else materialize(dropout),
    }
    found = results_of(device_count_log_prob, counts, given)
    expected = results_of(torch_count_log_prob, counts, given)
    if not all(bool(tensor.isfinite().all()) for tensor in expected.values()):
        return None
    for name, right in expected.items():
        error = found[name].double() - right.double()
        if name == "log-probability":
            difference = float((error.abs() / (1 + right.double().abs())).max())
            allowed = MAX_VALUE_DIFFERENCE
        else:
            rounding = 0.0
            if name == "gradient of log_library":
                rounding = MAX_ROUNDING_ERROR * counts.double().sum(dim=-1).norm()
            size = right.double().norm().clamp(min=1e-30)
            difference = float((error.norm() - rounding).clamp(min=0.0) / size)
            allowed = MAX_GRADIENT_DIFFERENCE
        if not difference <= allowed:
            return f"{name} by {difference:.2g} of its size"
    return ""


def results_of(
    function: Callable[..., Tensor], counts: Tensor, given: dict[str, Tensor | None]
) -> dict[str, Tensor]:
    """Log-probability and gradients of a function, by name, from copies of its arguments.

    Without gradients where none are computed now: that is another kernel.
    """
    with torch.inference_mode(False):
        needed = torch.is_grad_enabled()
        copies = {
            name: tensor.detach().clone().requires_grad_(needed)
            for name, tensor in given.items()
            if tensor is not None
        }
        log_prob = function(counts.detach().clone(), **copies)
        results = {"log-probability": log_prob.detach()}
        if needed:
            gradients = torch.autograd.grad(log_prob.sum(), list(copies.values()))
            names = [f"gradient of {name}" for name in copies]
            results |= dict(zip(names, gradients, strict=True))
        return results

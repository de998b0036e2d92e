"""Operator of torch that launches the kernel of `count_log_prob`.

As an operator, not a bare launch, it is seen by what looks at the operations of a step: profilers,
and the recorder that stands in for a CUDA graph in tests.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import Library

from cellvae.kernels.triton.count_log_prob_triton import count_log_prob_kernel

MAX_BLOCK = 1024
"""Genes that a program computes at a time."""
N_WARPS = 8

LIBRARY = Library("cellvae", "FRAGMENT")
LIBRARY.define(
    "count_log_prob(Tensor counts, Tensor heads, Tensor? logits_bias, Tensor? dropout_bias, "
    "Tensor log_library, Tensor? theta, bool inflated, Tensor(a!) log_prob, "
    "Tensor(b!) grad_log_library, Tensor(c!) gradients) -> ()"
)


def launch(
    counts: Tensor,
    heads: Tensor,
    logits_bias: Tensor | None,
    dropout_bias: Tensor | None,
    log_library: Tensor,
    theta: Tensor | None,
    inflated: bool,
    log_prob: Tensor,
    grad_log_library: Tensor,
    gradients: Tensor,
) -> None:
    """Launch the kernel, one program for each cell; results are written to the last three tensors.

    Parameters
    ----------
    counts
        Counts, [cells, genes].
    heads
        Logits of the fractions, followed by those of structural zeros if `inflated`.
    logits_bias, dropout_bias
        What is added to them, [genes].
    log_library
        Natural logarithm of the library size of each cell, [cells].
    theta
        Inverse dispersion, [genes] or [cells, genes]; None for the Poisson distribution.
    inflated
        Whether there are structural zeros.
    log_prob, grad_log_library
        Log-probability of each cell, and its derivative by `log_library`, [cells].
    gradients
        Derivatives by `heads` and theta, [cells, parts * genes]; empty if they are not needed.
    """
    n_cells, n_genes = counts.shape
    if not n_cells:
        return
    count_log_prob_kernel[(n_cells,)](
        counts,
        heads,
        heads if logits_bias is None else logits_bias,
        heads if dropout_bias is None else dropout_bias,
        log_library,
        heads if theta is None else theta,
        log_prob,
        grad_log_library,
        gradients,
        n_genes,
        counts.stride(0),
        heads.stride(0),
        theta.stride(0) if theta is not None and theta.ndim == 2 else 0,
        gradients.stride(0),
        HAS_LOGITS_BIAS=logits_bias is not None,
        HAS_DROPOUT_BIAS=dropout_bias is not None,
        DISPERSED=theta is not None,
        INFLATED=inflated,
        NEED_GRAD=gradients.numel() > 0,
        BLOCK=min(MAX_BLOCK, 1 << (n_genes - 1).bit_length()),
        num_warps=N_WARPS,
        enable_fp_fusion=False,
    )


for dispatch_key in ("CUDA", "CPU"):
    LIBRARY.impl("count_log_prob", launch, dispatch_key)

run_kernel = torch.ops.cellvae.count_log_prob.default

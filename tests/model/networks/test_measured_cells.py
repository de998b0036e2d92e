"""Only measured cells go through a kernel; losses and gradients are those of a mask on all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import sparse
from torch import Tensor, nn

from cellvae import settings
from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels import LazyLinear, bernoulli_log_prob, count_log_prob
from cellvae.model.networks.measured_cells import log_prob_of_measured
from cellvae.model.networks.multivi_module import MULTIVIBatch, MULTIVIModule
from cellvae.model.networks.multivi_network import MULTIVIConfig, MULTIVISizes

N_CELLS, N_FEATURES, N_HIDDEN = 9, 13, 4
MASKS = {
    "some": [True, False, True, True, False, False, True, False, True],
    "all": [True] * N_CELLS,
    "none": [False] * N_CELLS,
    "one": [False] * 8 + [True],
}


def make_counts(*, is_sparse: bool) -> Tensor | CSRBatch:
    """Counts of all cells, of those that are taken as not measured too."""
    torch.manual_seed(0)
    dense = torch.poisson(torch.full((N_CELLS, N_FEATURES), 0.8))
    if not is_sparse:
        return dense
    matrix = sparse.csr_matrix(dense.numpy())
    return CSRBatch.from_numpy(matrix.data, matrix.indices, matrix.indptr, N_FEATURES)


def make_arguments(kernel: str, *, is_sparse: bool) -> tuple[list[Any], list[Tensor]]:
    """Arguments of a kernel, and its tensors with a gradient."""
    counts = make_counts(is_sparse=is_sparse)
    torch.manual_seed(1)
    hidden = torch.randn(N_CELLS, N_HIDDEN, requires_grad=True)
    sizes = torch.randn(N_CELLS, 1).abs().neg().requires_grad_()
    layer, second = nn.Linear(N_HIDDEN, N_FEATURES), nn.Linear(N_HIDDEN, N_FEATURES)
    logits = LazyLinear(hidden, layer.weight, layer.bias)
    leaves = [hidden, sizes, *layer.parameters()]
    if kernel == "regions":
        factors = torch.randn(N_FEATURES).abs().neg().requires_grad_()
        return [counts, logits, sizes, factors], [*leaves, factors]
    theta = torch.rand(N_FEATURES, requires_grad=True)
    if kernel == "theta by cell":
        theta = torch.rand(N_CELLS, N_FEATURES, requires_grad=True)
    dropout = LazyLinear(hidden, second.weight, second.bias)
    return [counts, logits, sizes, theta, dropout], [*leaves, theta, *second.parameters()]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("kernel", ["regions", "theta", "theta by cell"])
def test_loss_and_gradients_are_those_of_all_cells_with_a_mask(
    kernel: str, is_sparse: bool, mask: str
) -> None:
    measured = torch.tensor(MASKS[mask])[:, None]
    function = bernoulli_log_prob if kernel == "regions" else count_log_prob
    arguments, leaves = make_arguments(kernel, is_sparse=is_sparse)
    expected = torch.where(measured[:, 0], function(*arguments), 0.0)
    found = log_prob_of_measured(function, measured, *arguments)
    torch.testing.assert_close(found, expected)
    weights = torch.linspace(0.5, 2.0, N_CELLS)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_kernel_is_given_measured_cells_alone() -> None:
    measured = torch.tensor(MASKS["some"])[:, None]
    shapes: list[int] = []

    def kernel(counts: CSRBatch, logits: LazyLinear, *_: Any) -> Tensor:
        shapes.extend((counts.n_cells, len(logits.features)))
        return logits.features.sum(dim=1)

    arguments, _ = make_arguments("regions", is_sparse=True)
    log_prob_of_measured(kernel, measured, *arguments)
    assert shapes == [5, 5]


def test_a_network_gives_the_same_loss_with_and_without_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    sizes = MULTIVISizes(n_genes=N_FEATURES, n_regions=N_FEATURES, n_batch=2, n_cells=N_CELLS)
    module = MULTIVIModule(sizes, MULTIVIConfig(dropout_rate=0.0, dispersion="gene-batch"))
    counts, has = make_counts(is_sparse=True), torch.tensor(MASKS["some"])[:, None]
    has_regions = ~has
    has_regions[0] = True
    batch = MULTIVIBatch(
        batch=torch.arange(N_CELLS)[:, None] % 2,
        labels=torch.zeros(N_CELLS, 1, dtype=torch.int64),
        counts=counts,
        regions=counts,
        has_rna=has,
        has_regions=has_regions,
    )
    losses, gradients = {}, {}
    for kernels in ("torch", "compiled"):
        monkeypatch.setattr(settings, "kernels", kernels)
        torch.manual_seed(2)
        loss = module.loss(batch, torch.tensor(1.0))
        losses[kernels] = loss.total_reconstruction.detach()
        module.zero_grad()
        loss.loss.backward()
        gradients[kernels] = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    torch.testing.assert_close(losses["torch"], losses["compiled"])
    for a, b in zip(gradients["torch"], gradients["compiled"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_nothing_is_read_from_a_device() -> None:
    # A meta tensor has no values: to look for the measured cells would raise.
    values = torch.ones(N_CELLS, N_FEATURES, device="meta")
    measured = torch.ones(N_CELLS, 1, dtype=torch.bool, device="meta")
    found = log_prob_of_measured(lambda x: x.sum(dim=1), measured, values)
    assert found.device.type == "meta" and found.shape == (N_CELLS,)

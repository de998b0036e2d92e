"""Compiled log-likelihood of detections against the distribution in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import sparse
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch
from cellvae.distributions.detection import Detection
from cellvae.kernels import LazyLinear, bernoulli_log_prob

N_CELLS, N_REGIONS = 37, 61


@pytest.fixture
def given() -> dict[str, Tensor]:
    torch.manual_seed(0)
    depth = -torch.rand(N_CELLS, 1) * 3
    depth[0], depth[1] = 0.0, -30.0
    return {
        "counts": (torch.rand(N_CELLS, N_REGIONS) < 0.2).float() * 3,
        "logits": 6 * torch.randn(N_CELLS, N_REGIONS),
        "log_depth": depth,
        "log_factor": -torch.rand(N_REGIONS) * 1e-3,
    }


def entries_of(counts: Tensor) -> CSRBatch:
    matrix = sparse.csr_matrix(counts.numpy())
    return CSRBatch.from_numpy(matrix.data, matrix.indices, matrix.indptr, counts.shape[1])


@pytest.mark.parametrize("by_entries", [True, False])
def test_value_and_gradient_are_those_of_the_distribution(
    given: dict[str, Tensor], by_entries: bool
) -> None:
    weight = torch.rand(N_CELLS)
    names = ("logits", "log_depth", "log_factor")
    mine = [given[name].clone().requires_grad_() for name in names]
    wide = [given[name].double().requires_grad_() for name in names]
    counts = entries_of(given["counts"]) if by_entries else given["counts"]

    value = bernoulli_log_prob(counts, *mine)
    (value * weight).sum().backward()

    exact = Detection(wide[0], wide[1] + wide[2]).log_prob(given["counts"].double()).sum(-1)
    (exact * weight.double()).sum().backward()
    torch.testing.assert_close(value.double(), exact.detach(), rtol=2e-6, atol=1e-4)
    for own, expected in zip(mine, wide, strict=True):
        largest = float(expected.grad.abs().max())
        torch.testing.assert_close(own.grad.double(), expected.grad, rtol=1e-4, atol=1e-6 * largest)


def test_one_region_by_hand() -> None:
    half = torch.tensor([[math.log(0.5)]])
    for count, chance in ((0.0, 0.75), (2.0, 0.25)):
        value = bernoulli_log_prob(torch.tensor([[count]]), torch.zeros(1, 1), half, torch.zeros(1))
        assert value.item() == pytest.approx(math.log(chance), rel=1e-6)


def test_values_are_the_same_bits_without_gradients(given: dict[str, Tensor]) -> None:
    parts = [given[name] for name in ("logits", "log_depth", "log_factor")]
    entries = entries_of(given["counts"])
    plain = bernoulli_log_prob(entries, *parts)
    with_gradients = bernoulli_log_prob(entries, *(p.clone().requires_grad_() for p in parts))
    assert torch.equal(plain, with_gradients.detach())


def test_what_is_certain_has_a_finite_likelihood() -> None:
    # A region that is surely accessible and surely detected, and was not.
    logits = torch.tensor([[200.0]], requires_grad=True)
    value = bernoulli_log_prob(torch.zeros(1, 1), logits, torch.zeros(1, 1), torch.zeros(1))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("part", ["logits", "log_depth", "log_factor"])
def test_what_is_not_finite_is_not_lost(given: dict[str, Tensor], part: str) -> None:
    broken = given[part].clone()
    broken.view(-1)[3] = math.nan
    value = bernoulli_log_prob(**given | {part: broken})
    assert not torch.isfinite(value).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_a_layer_left_to_the_kernel_gives_what_it_gives_by_itself(
    given: dict[str, Tensor], weighted: bool
) -> None:
    torch.manual_seed(1)
    weight = torch.rand(N_CELLS) if weighted else torch.full((N_CELLS,), 0.3)
    layer = LazyLinear(torch.randn(N_CELLS, 7), torch.randn(N_REGIONS, 7), torch.randn(N_REGIONS))

    def results(*, left: bool) -> list[Tensor]:
        """Value, and gradients by everything that the result follows from."""
        own = LazyLinear(*(part.clone().requires_grad_() for part in layer))
        others = [given[name].clone().requires_grad_() for name in ("log_depth", "log_factor")]
        logits = own if left else own.materialize()
        value = bernoulli_log_prob(given["counts"], logits, *others)
        (value * weight).sum().backward()
        return [value.detach(), *(t.grad for t in (*own, *others))]

    for mine, expected in zip(results(left=True), results(left=False), strict=True):
        largest = expected.abs().max().item()
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=3e-6 * largest)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(1)
    counts = (torch.rand(150, 9) < 0.3).float()
    layer = LazyLinear(torch.randn(150, 3), torch.randn(9, 3), torch.randn(9).requires_grad_())
    depth, factor = -torch.rand(150, 1), (-torch.rand(9)).requires_grad_()

    def found() -> list[Tensor]:
        value = bernoulli_log_prob(counts, layer, depth, factor)
        return [value, *torch.autograd.grad(value.sum(), [factor, layer.bias])]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = found()
        for n_threads in (2, 3, 5):
            torch.set_num_threads(n_threads)
            assert all(torch.equal(a, b) for a, b in zip(one, found(), strict=True))
    finally:
        torch.set_num_threads(before)

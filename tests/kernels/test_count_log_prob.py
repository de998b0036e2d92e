"""Compiled log-likelihoods against the distributions in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from count_inputs import LIKELIHOODS, N_CELLS, N_GENES, exact, inputs
from scipy import sparse
from torch import Tensor, nn

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels import (
    LazyLinear,
    count_log_prob,
    dispatch,
    lazy_linear,
    stack_weights,
    use_compiled,
)
from cellvae.kernels.dispatch import can_compile
from cellvae.kernels.layers.lazy_linear import find_stack
from cellvae.settings import settings


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_value_and_gradient_are_those_of_the_distribution(likelihood: str, per_cell: bool) -> None:
    given = inputs(likelihood, per_cell=per_cell)
    assert_exact(given, torch.rand(N_CELLS))


def assert_exact(
    given: dict[str, Tensor | None],
    weight: Tensor,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    least: float = 0.0,
) -> None:
    """Value and gradients are those of the distribution in double precision.

    The absolute tolerance of a gradient is `atol` times its largest element, or times `least`.
    """
    narrow = {
        k: None if v is None else v.clone().requires_grad_(k != "counts") for k, v in given.items()
    }
    value = count_log_prob(**narrow)
    (value * weight).sum().backward()
    expected, gradients = exact(given, weight.double())
    torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=1e-4)
    for name, gradient in gradients.items():
        largest = max(gradient.abs().max().item(), least)
        torch.testing.assert_close(
            narrow[name].grad.double(), gradient, rtol=rtol, atol=atol * largest
        )


def entries_of(counts: Tensor) -> CSRBatch:
    matrix = sparse.csr_matrix(counts.numpy())
    # A count that is stored though it is zero.
    matrix.data[4] = 0
    counts[tuple(torch.tensor(axis[4]) for axis in counts.numpy().nonzero())] = 0
    return CSRBatch.from_numpy(matrix.data, matrix.indices, matrix.indptr, counts.shape[1])


@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_counts_and_their_entries_give_the_same_bits(likelihood: str, per_cell: bool) -> None:
    given = inputs(likelihood, per_cell=per_cell)
    entries = entries_of(given["counts"])
    found = []
    for counts in (given["counts"], entries):
        own = {
            k: v.clone().requires_grad_() if isinstance(v, Tensor) else v
            for k, v in given.items()
            if k != "counts"
        }
        value = count_log_prob(counts, **own)
        value.sum().backward()
        found.append([value.detach(), *(v.grad for v in own.values() if v is not None)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_without_gradients_the_values_are_the_same_bits(likelihood: str) -> None:
    given = inputs(likelihood)
    with_gradients = {
        k: None if v is None else v.clone().requires_grad_(k != "counts") for k, v in given.items()
    }
    assert torch.equal(count_log_prob(**given), count_log_prob(**with_gradients).detach())


@pytest.mark.parametrize("theta", [1e-30, 1e-8, 1e-3, 1.0, 1e4, 1e8, 1e14])
def test_dispersions_far_from_one_are_as_exact(theta: float) -> None:
    given = inputs("nb") | {"theta": torch.full((N_GENES,), theta)}

    value = count_log_prob(**given)

    expected, _ = exact(given, torch.ones(N_CELLS))
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("theta", [1e-8, 0.3, 50.0, 1e4])
def test_counts_on_both_sides_of_four_are_as_exact(likelihood: str, theta: float) -> None:
    given = inputs(likelihood)
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0])
    given["counts"] = values.repeat(N_CELLS * N_GENES // len(values) + 1)[: N_CELLS * N_GENES].view(
        N_CELLS, N_GENES
    )
    given["log_library"] = given["counts"].sum(-1, keepdim=True).log() + 0.5
    if likelihood != "poisson":
        given["theta"] = torch.full((N_GENES,), theta)
    assert_exact(given, torch.ones(N_CELLS))


@pytest.mark.parametrize("dropout", [-1e4, -200.0, -70.0, -59.0, -20.0, 39.0, 41.0, 90.0, 1e4])
@pytest.mark.parametrize("log_library", [-3.0, 8.0, 14.0])
def test_zero_inflation_is_exact_however_small_both_probabilities_are(
    dropout: float, log_library: float
) -> None:
    # With the larger libraries zeros have probabilities down to e^-20000.
    given = inputs("zinb")
    given["counts"] = torch.zeros(N_CELLS, N_GENES)
    given["counts"][:, 3] = 2.0
    given["theta"] = torch.full((N_GENES,), 1e3)
    given["log_library"] = torch.full((N_CELLS, 1), log_library)
    given["dropout"] = dropout + torch.randn(N_CELLS, N_GENES)
    assert_exact(given, torch.ones(N_CELLS), rtol=1e-3, atol=3e-6, least=1e-3)


def test_a_cell_with_one_count_by_hand() -> None:
    counts = torch.tensor([[2.0, 0.0]])

    value = count_log_prob(
        counts, torch.zeros(1, 2), torch.tensor([[math.log(6.0)]]), theta=torch.ones(2)
    )

    # Mean 3 and inverse dispersion 1: the geometric distribution with success 1/4.
    assert value.item() == pytest.approx(math.log(0.25 * 0.75**2) + math.log(0.25), rel=1e-6)


@pytest.mark.parametrize("part", ["logits", "log_library", "theta", "dropout"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_not_lost(part: str, wrong: float) -> None:
    given = inputs("zinb")
    tensor = given[part].clone()
    tensor.view(-1)[3] = wrong
    if part == "theta" and wrong == math.inf:
        pytest.skip("An infinite inverse dispersion is the Poisson distribution.")

    value = count_log_prob(**given | {part: tensor})

    assert not torch.isfinite(value).all()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_results_do_not_depend_on_the_number_of_threads(likelihood: str) -> None:
    given = inputs(likelihood)
    one = count_log_prob(**given)
    for n_threads in (2, 3):
        torch.set_num_threads(n_threads)
        assert torch.equal(count_log_prob(**given), one)


def test_a_second_backward_gives_the_same() -> None:
    given = inputs("nb")
    logits = given["logits"].clone().requires_grad_()
    value = count_log_prob(**given | {"logits": logits}).sum()
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    (second,) = torch.autograd.grad(value, logits)

    assert torch.equal(first, second)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_layers_left_to_the_kernel_give_what_they_give_by_themselves(
    likelihood: str, per_cell: bool, weighted: bool
) -> None:
    given = inputs(likelihood, per_cell=per_cell)
    weight = torch.rand(N_CELLS) if weighted else torch.full((N_CELLS,), 0.3)
    names = ("logits", "dropout")
    layers = {
        name: LazyLinear(torch.randn(N_CELLS, 7), torch.randn(N_GENES, 7), torch.randn(N_GENES))
        for name in names
        if given[name] is not None
    }

    def results(*, left: bool) -> dict[str, Tensor]:
        """Value, and gradients by everything that the result follows from."""
        own = {
            n: LazyLinear(*(part.clone().requires_grad_() for part in layers[n])) for n in layers
        }
        others = {
            n: v.clone().requires_grad_()
            for n, v in given.items()
            if v is not None and n not in (*layers, "counts")
        }
        whole = {n: layer if left else layer.materialize() for n, layer in own.items()}
        value = count_log_prob(given["counts"], **whole, **others)
        (value * weight).sum().backward()
        found = {f"{n} {part}": t.grad for n in own for part, t in own[n]._asdict().items()}
        return found | {n: v.grad for n, v in others.items()} | {"value": value.detach()}

    left, computed = results(left=True), results(left=False)
    for name, expected in computed.items():
        largest = expected.abs().max().item()
        torch.testing.assert_close(left[name], expected, rtol=1e-4, atol=3e-6 * largest, msg=name)


@pytest.fixture
def two_heads() -> Iterator[tuple[nn.Linear, nn.Linear]]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(1)
    yield nn.Linear(7, N_GENES), nn.Linear(7, N_GENES)
    torch.set_num_threads(before)


@pytest.mark.parametrize("weighted", [False, True])
def test_heads_with_adjacent_weights_are_one_product(
    two_heads: tuple[nn.Linear, nn.Linear], weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, hidden = inputs("zinb"), torch.randn(N_CELLS, 7)
    weight = torch.rand(N_CELLS) if weighted else torch.full((N_CELLS,), 0.3)
    products: list[tuple[int, ...]] = []
    bmm = torch.bmm

    def counted(first: Tensor, second: Tensor) -> Tensor:
        products.append(tuple(first.shape))
        return bmm(first, second)

    monkeypatch.setattr(torch, "bmm", counted)

    def results() -> list[Tensor]:
        features = hidden.clone().requires_grad_()
        given["logits"], given["dropout"] = (lazy_linear(head, features) for head in two_heads)
        value = count_log_prob(**given)
        (value * weight).sum().backward()
        parameters = [p for head in two_heads for p in head.parameters()]
        found = [value.detach(), features.grad, *(p.grad for p in parameters)]
        for parameter in parameters:
            parameter.grad = None
        return found

    apart = results()
    assert not products
    before = [head.weight.clone() for head in two_heads]
    stack_weights(*two_heads)
    assert all(map(torch.equal, before, (head.weight for head in two_heads)))
    together = results()
    # With other weights of the cells their sums are computed once more.
    forward = (1 + weighted) * [(2, N_CELLS, 7)]
    assert products == [*forward, (2, N_GENES, N_CELLS), (2, N_CELLS, N_GENES)]
    for mine, expected in zip(together, apart, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6 * expected.abs().max())
    # Frozen parts get no gradient, and further threads their part of each product.
    products.clear()
    two_heads[1].weight.requires_grad_(requires_grad=False)
    frozen = results()
    assert frozen[4] is None and products == forward
    torch.testing.assert_close(frozen[1], apart[1], rtol=1e-4, atol=1e-6 * apart[1].abs().max())
    torch.set_num_threads(3)
    results()
    assert products == forward


def test_weights_are_a_stack_only_where_they_are_adjacent() -> None:
    both = torch.arange(24.0).view(2, 3, 4)
    stack = find_stack(both[0], both[1])
    assert stack is not None and torch.equal(stack, both)
    assert find_stack(both[1], both[0]) is None
    assert find_stack(both[0], both[1].clone()) is None
    assert find_stack(both[0], both[1, :2]) is None
    assert find_stack(both[0].t(), both[1].t()) is None
    assert find_stack(None, both[1]) is None


@pytest.mark.parametrize("frozen", ["features", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    given = inputs("zinb")
    for name in ("logits", "dropout"):
        parts = {
            "features": torch.randn(N_CELLS, 7),
            "weight": torch.randn(N_GENES, 7),
            "bias": torch.randn(N_GENES),
        }
        given[name] = LazyLinear(**{n: v.requires_grad_(n != frozen) for n, v in parts.items()})
    count_log_prob(**given).sum().backward()
    for layer in (given["logits"], given["dropout"]):
        for name, part in layer._asdict().items():
            assert (part.grad is None) == (name == frozen)


def test_no_derivatives_are_computed_where_there_is_no_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The package has a function of the name of the module.
    module = import_module("cellvae.kernels.likelihoods.count_log_prob")
    need_grad = []
    compute = module.compute_count_log_prob

    def recorded(*args: Any, **kwargs: Any) -> Any:
        need_grad.append(kwargs["need_grad"])
        return compute(*args, **kwargs)

    monkeypatch.setattr(module, "compute_count_log_prob", recorded)
    given = inputs("nb") | {
        "logits": LazyLinear(
            torch.randn(N_CELLS, 7),
            torch.nn.Parameter(torch.randn(N_GENES, 7)),
            torch.nn.Parameter(torch.randn(N_GENES)),
        )
    }
    with_derivatives = count_log_prob(**given)
    with torch.no_grad():
        without = count_log_prob(**given)
    with torch.inference_mode():
        count_log_prob(**given)
    assert need_grad == [True, False, False]
    assert torch.equal(without, with_derivatives.detach())


def test_many_cells_are_summed_in_the_same_ranges_by_any_number_of_threads(
    one_thread: None,
) -> None:
    torch.manual_seed(1)
    counts = torch.poisson(torch.rand(150, 9))
    theta = torch.rand(9).requires_grad_()
    layer = LazyLinear(torch.randn(150, 3), torch.randn(9, 3), torch.randn(9).requires_grad_())

    def gradients() -> list[Tensor]:
        value = count_log_prob(counts, layer, torch.full((150, 1), 3.0), theta)
        return list(torch.autograd.grad(value.sum(), [theta, layer.bias]))

    one = gradients()
    for n_threads in (2, 3, 5):
        torch.set_num_threads(n_threads)
        assert all(torch.equal(a, b) for a, b in zip(one, gradients(), strict=True))


def test_the_largest_logit_is_found_whatever_its_sign() -> None:
    logits = torch.tensor([[-400.0, -390.0, -395.0], [300.0, -1e30, 310.0], [0.0, -0.0, -1e-40]])

    value = count_log_prob(torch.zeros(3, 3), logits, torch.full((3, 1), 2.0))

    # All fractions sum to one, so that the Poisson log-probability of no counts is minus the size.
    torch.testing.assert_close(value, torch.full((3,), -math.exp(2.0)))


def test_settings_choose_where_the_kernels_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = torch.zeros(2, 16), torch.zeros(2, 256)
    assert [use_compiled(few), use_compiled(many)] == [False, True]
    monkeypatch.setitem(settings.values, "kernels", "compiled")
    assert use_compiled(few)
    assert not use_compiled(many.double())
    assert not use_compiled(torch.zeros(3, 2, 256))
    monkeypatch.setitem(settings.values, "kernels", "torch")
    assert not use_compiled(many)


def test_where_nothing_can_be_compiled_torch_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(name: str) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    can_compile.cache_clear()
    monkeypatch.setattr(dispatch, "import_module", refused)
    with caplog.at_level("INFO", logger="cellvae"):
        assert not use_compiled(torch.zeros(2, 300))
        assert not use_compiled(torch.zeros(2, 300))
    assert [record.message for record in caplog.records] == [
        "Kernels cannot be compiled here, torch is used instead: "
        "cannot cache function: no locator available"
    ]
    can_compile.cache_clear()

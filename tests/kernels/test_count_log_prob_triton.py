"""Log-likelihoods of the kernel for CUDA devices, by Triton's interpreter, in double precision.

They need Triton, whose package is too large for every run of the tests, and `TRITON_INTERPRET=1` in
the environment. What is done where it is absent, or gives other results, is in `test_first_use.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from importlib import util
from typing import Any

import pytest
import torch
from count_inputs import LIKELIHOODS, exact, inputs
from torch import Tensor

from cellvae.core.platform.device_kind import emulate_cuda
from cellvae.distributions.functional.stirling import SINGLE
from cellvae.kernels import LazyLinear, count_log_prob, has_count_kernel
from cellvae.kernels.triton import first_use
from cellvae.kernels.triton.device_log_prob import device_count_log_prob
from cellvae.settings import settings

pytestmark = [
    pytest.mark.skipif(
        util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
        reason="Triton is not installed, or TRITON_INTERPRET=1 was not set when Python started",
    ),
    # NumPy, with which the interpreter computes, warns of what a device does without a word.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
Given = dict[str, Any]


@pytest.fixture(autouse=True)
def unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel was not used before."""
    monkeypatch.setattr(first_use, "compared", set())
    monkeypatch.setattr(first_use, "failed", {})


def sized(likelihood: str, n_cells: int, n_genes: int, *, per_cell: bool = False) -> Given:
    """The first cells and genes of more of the same inputs."""
    given = inputs(likelihood, per_cell=per_cell)
    repeated = -(-n_genes // 61)

    def cut(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        wide = tensor if tensor.shape[-1] == 1 else torch.cat([tensor] * repeated, dim=-1)
        wide = wide[..., :n_genes] if tensor.shape[-1] > 1 else wide
        return (wide[:n_cells] if wide.ndim == 2 else wide).clone()

    return {name: cut(tensor) for name, tensor in given.items()}


def leaves(given: Given) -> Given:
    return {
        k: None if v is None else v.clone().requires_grad_(k != "counts") for k, v in given.items()
    }


@pytest.mark.parametrize(("n_cells", "n_genes"), [(5, 61), (1, 1), (3, 7), (2, 1024), (4, 2051)])
@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_value_and_gradient_are_those_of_the_distribution(
    likelihood: str, per_cell: bool, n_cells: int, n_genes: int
) -> None:
    given = sized(likelihood, n_cells, n_genes, per_cell=per_cell)
    weight = torch.rand(n_cells)
    narrow = leaves(given)

    value = device_count_log_prob(**narrow)
    (value * weight).sum().backward()

    expected, gradients = exact(given, weight.double())
    torch.testing.assert_close(value.detach().double(), expected, rtol=2e-6, atol=1e-4)
    for name, gradient in gradients.items():
        largest = gradient.abs().max().item()
        torch.testing.assert_close(
            narrow[name].grad.double(), gradient, rtol=1e-4, atol=1e-6 * largest + 1e-6
        )


@pytest.mark.parametrize("theta", [1e-30, 1e-8, 1e-3, 1.0, 1e4, 1e8, 1e14])
def test_dispersions_far_from_one_are_as_exact(theta: float) -> None:
    given = sized("nb", 3, 61) | {"theta": torch.full((61,), theta)}

    value = device_count_log_prob(**given)

    expected, _ = exact(given, torch.ones(3))
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-3)


def test_extreme_logits_and_dropout() -> None:
    given = sized("zinb", 4, 61)
    given["logits"][0, :4] = torch.tensor([-90.0, -400.0, -math.inf, 60.0])
    given["dropout"][:, :4] = torch.tensor([-80.0, 80.0, -1e4, 1e4])
    given["counts"][:, 1] = given["counts"][:, 3] = 0
    narrow = leaves(given)

    value = device_count_log_prob(**narrow)
    value.sum().backward()

    expected, gradients = exact(given, torch.ones(4))
    torch.testing.assert_close(value.detach().double(), expected, rtol=2e-6, atol=1e-4)
    for name in ("dropout", "theta"):
        largest = gradients[name].abs().max().item()
        torch.testing.assert_close(
            narrow[name].grad.double(), gradients[name], rtol=1e-4, atol=2e-6 * largest
        )


@pytest.mark.parametrize("part", ["counts", "logits", "log_library", "theta", "dropout"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_not_lost(part: str, wrong: float) -> None:
    given = sized("zinb", 4, 61)
    given[part].view(-1)[3] = wrong
    if part == "theta" and wrong == math.inf:
        pytest.skip("An infinite inverse dispersion is the Poisson distribution.")

    assert not torch.isfinite(device_count_log_prob(**given)).all()


@pytest.mark.parametrize("kind", ["shared", "separate", "logits only", "dropout only", "none"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_layers_left_to_the_kernel_give_what_they_give_by_themselves(
    likelihood: str, kind: str
) -> None:
    given = sized(likelihood, 6, 61)
    weight = torch.rand(6)
    features = {"logits": torch.randn(6, 7), "dropout": torch.randn(6, 7)}
    if kind == "shared":
        features["dropout"] = features["logits"]
    names = [
        n for n in features if given[n] is not None and kind in ("shared", "separate", f"{n} only")
    ]
    parts = {name: (torch.randn(61, 7), torch.randn(61)) for name in names}

    def results(*, left: bool) -> dict[str, Tensor]:
        """Value, and gradients by everything that the result follows from."""
        own_features = {id(f): f.clone().requires_grad_() for f in features.values()}
        layers = {
            n: LazyLinear(
                own_features[id(features[n])], *(p.clone().requires_grad_() for p in parts[n])
            )
            for n in names
        }
        others = {
            n: v.clone().requires_grad_()
            for n, v in given.items()
            if v is not None and n not in (*names, "counts")
        }
        whole = {n: layer if left else layer.materialize() for n, layer in layers.items()}
        value = device_count_log_prob(given["counts"], **whole, **others)
        (value * weight).sum().backward()
        found = {f"{n} {p}": t.grad for n in names for p, t in layers[n]._asdict().items()}
        return found | {n: v.grad for n, v in others.items()} | {"value": value.detach()}

    left, computed = results(left=True), results(left=False)
    for name, expected in computed.items():
        largest = expected.abs().max().item()
        torch.testing.assert_close(left[name], expected, rtol=1e-4, atol=3e-6 * largest, msg=name)


@pytest.mark.parametrize("frozen", ["features", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    given = sized("zinb", 3, 61)
    features = torch.randn(3, 7, requires_grad=frozen != "features")
    for name in ("logits", "dropout"):
        weight = torch.randn(61, 7, requires_grad=frozen != "weight")
        given[name] = LazyLinear(features, weight, torch.randn(61, requires_grad=frozen != "bias"))
    device_count_log_prob(**given).sum().backward()
    for name in ("logits", "dropout"):
        for part, tensor in given[name]._asdict().items():
            assert (tensor.grad is None) == (part == frozen)


def test_without_gradients_the_values_are_the_same_bits() -> None:
    given = sized("zinb", 3, 61)
    value = device_count_log_prob(**leaves(given))
    with torch.no_grad():
        assert torch.equal(device_count_log_prob(**leaves(given)), value)
    assert device_count_log_prob(**sized("zinb", 0, 61)).shape == (0,)


def test_a_second_backward_gives_the_same() -> None:
    given = leaves(sized("nb", 3, 61))
    value = device_count_log_prob(**given).sum()
    first = torch.autograd.grad(value, [given["logits"], given["theta"]], retain_graph=True)
    second = torch.autograd.grad(value, [given["logits"], given["theta"]])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_series_are_those_of_special_functions() -> None:
    from series_kernel import series_kernel

    from cellvae.kernels.triton import count_log_prob_triton as kernel

    found = [[getattr(kernel, f"{letter}{i}").value for i in range(3)] for letter in "SD"]
    assert found == [list(SINGLE.terms), list(SINGLE.slopes)]
    assert kernel.SHIFT.value == SINGLE.shift

    z = torch.logspace(-6, 6, 256)
    digamma, lgamma = torch.empty(256), torch.empty(256)
    series_kernel[(1,)](z, digamma, lgamma, BLOCK=256)
    wide, high = z.double(), z.double() + 2
    expected = torch.special.digamma(wide) - high.log()
    torch.testing.assert_close(digamma.double(), expected, rtol=4e-7, atol=2e-7)
    stirling = torch.special.gammaln(high) - ((high - 0.5) * high.log() - high)
    expected = stirling - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(lgamma.double(), expected, rtol=0, atol=1e-7)


def test_models_take_it_where_it_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = torch.zeros(2, 16)
    assert not has_count_kernel(counts)
    with emulate_cuda():
        assert has_count_kernel(counts)
        assert not has_count_kernel(counts.double())
        assert not has_count_kernel(torch.zeros(3, 2, 16))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not has_count_kernel(counts)
        monkeypatch.setitem(settings.values, "kernels", "torch")
        assert not has_count_kernel(counts)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_first_use_agrees_with_torch(likelihood: str) -> None:
    given = leaves(sized(likelihood, 5, 61))
    given["counts"][2] = 0
    with emulate_cuda():
        value = count_log_prob(**given)
    assert len(first_use.compared) == 1 and not first_use.failed
    assert torch.equal(value, device_count_log_prob(**given))


def test_a_kernel_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(part: str) -> Callable[..., Tensor]:
        def function(counts: Tensor, **given: Any) -> Tensor:
            # Of the same value, with a gradient that is too large.
            given[part] = given[part].detach() + 1.01 * (given[part] - given[part].detach())
            return device_count_log_prob(counts, **given)

        return function

    given = sized("zinb", 5, 61)
    for part in ("logits", "dropout", "theta"):
        monkeypatch.setattr(first_use, "device_count_log_prob", wrong(part))
        found = first_use.find_difference(**given)
        assert found is not None and found.startswith(f"gradient of {part} by ")

"""What is done where the kernel for CUDA devices is absent, fails or gives other results."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib import util
from typing import Any

import pytest
import torch
from count_inputs import LIKELIHOODS, exact, inputs
from torch import Tensor

from cellvae.core.platform.device_kind import emulate_cuda
from cellvae.errors import TrainingWarning
from cellvae.kernels import count_log_prob, has_count_kernel
from cellvae.kernels.triton import first_use
from cellvae.kernels.triton.first_use import torch_count_log_prob


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CPU tensors take the path of CUDA tensors, and torch stands in for the kernel."""
    monkeypatch.setattr(first_use, "compared", set())
    monkeypatch.setattr(first_use, "failed", {})
    monkeypatch.setattr(first_use, "can_import", lambda kind: True)
    monkeypatch.setattr(first_use, "device_count_log_prob", torch_count_log_prob)
    with emulate_cuda():
        yield


@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_what_it_is_compared_with_is_the_distribution(likelihood: str, per_cell: bool) -> None:
    given = inputs(likelihood, per_cell=per_cell)
    weight = torch.rand(len(given["counts"]))
    own = {
        k: None if v is None else v.clone().requires_grad_(k != "counts") for k, v in given.items()
    }
    value = torch_count_log_prob(**own)
    (value * weight).sum().backward()
    expected, gradients = exact(given, weight.double())
    torch.testing.assert_close(value.detach().double(), expected, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients.items():
        largest = gradient.abs().max().item()
        torch.testing.assert_close(
            own[name].grad.double(), gradient, rtol=1e-5, atol=1e-6 * largest
        )


def test_it_is_compared_once_for_each_kind_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    n_compared = 0
    find_difference = first_use.find_difference

    def counted(*given: Any) -> str | None:
        nonlocal n_compared
        n_compared += 1
        return find_difference(*given)

    monkeypatch.setattr(first_use, "find_difference", counted)
    given = inputs("zinb")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            count_log_prob(**given)
        assert n_compared == 1
        with torch.inference_mode():
            count_log_prob(**given)
            count_log_prob(**given)
        assert n_compared == 2
        count_log_prob(**inputs("zinb", per_cell=True))
        count_log_prob(**inputs("nb"))
        assert n_compared == 4
    assert has_count_kernel(given["counts"])


def test_another_result_is_told_once_and_torch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*given: Any, **named: Any) -> Tensor:
        return torch_count_log_prob(*given, **named) * 1.01

    monkeypatch.setattr(first_use, "device_count_log_prob", wrong)
    given = inputs("nb")
    with pytest.warns(
        TrainingWarning, match=r"first batch: log-probability by 0\.\d+ of its"
    ) as told:
        value = count_log_prob(**given)
        assert torch.equal(count_log_prob(**given), value)
    assert len(told) == 1
    assert torch.equal(value, torch_count_log_prob(**given))
    assert not has_count_kernel(given["counts"])


@pytest.mark.parametrize(("error", "agrees"), [(1e-7, True), (1e-5, False)])
def test_derivatives_that_cancel_differ_by_the_rounding_of_their_sum(
    monkeypatch: pytest.MonkeyPatch, error: float, agrees: bool
) -> None:
    given = inputs("poisson")
    totals = given["counts"].sum(-1, keepdim=True).clamp(min=1.0)
    given["log_library"] = totals.log()

    def rounded(counts: Tensor, logits: Tensor, log_library: Tensor) -> Tensor:
        value = torch_count_log_prob(counts, logits, log_library)
        change = error * totals * (log_library - log_library.detach())
        return value + change.squeeze(-1)

    monkeypatch.setattr(first_use, "device_count_log_prob", rounded)
    difference = first_use.find_difference(**given)
    assert difference is not None
    assert agrees == (not difference)
    assert agrees or difference.startswith("gradient of log_library by")


def test_a_kernel_that_cannot_run_is_left_out_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*given: Any, **named: Any) -> Tensor:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(first_use, "device_count_log_prob", failing)
    given = inputs("poisson")
    with warnings.catch_warnings(), caplog.at_level("INFO", logger="cellvae"):
        warnings.simplefilter("error")
        value = count_log_prob(**given)
    assert "Failed to find C compiler" in caplog.text
    assert torch.equal(value, torch_count_log_prob(**given))
    assert not has_count_kernel(given["counts"])


def test_a_batch_that_is_not_finite_tells_nothing() -> None:
    given = inputs("nb")
    spoiled = given | {"logits": given["logits"].clone().fill_(float("nan"))}
    assert count_log_prob(**spoiled).isnan().all()
    assert not first_use.compared and not first_use.failed
    count_log_prob(**given)
    assert len(first_use.compared) == 1


def test_without_triton_torch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    first_use.can_import.cache_clear()
    with emulate_cuda():
        assert not has_count_kernel(torch.zeros(2, 300))
    first_use.can_import.cache_clear()

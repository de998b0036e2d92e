"""Batch normalisation, ReLU and dropout by one kernel, against torch's three functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cellvae.kernels import LazyLinear, batch_norm_relu_dropout
from cellvae.kernels.dispatch import can_compile

MOMENTUM, EPS = 0.01, 0.001

if not can_compile("batch_norm_relu_dropout"):  # pragma: no cover - numba is a dependency
    pytest.skip("kernels cannot be compiled here", allow_module_level=True)


class Case:
    """Features, weights and running statistics, in single and in double precision."""

    def __init__(self, n_cells: int, n_columns: int, mean: float = 3.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(n_cells, n_columns, generator=generator) * 2 + mean
        self.weight = torch.rand(n_columns, generator=generator) + 0.5
        self.bias = torch.randn(n_columns, generator=generator)
        self.grad = torch.randn(n_cells, n_columns, generator=generator)
        self.running = torch.rand(2, n_columns, generator=generator) + 0.5

    def inputs(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        tensors = (self.features, self.weight, self.bias)
        return [t.to(dtype).detach().clone().requires_grad_() for t in tensors]

    def run(self, rate: float) -> tuple[Tensor, list[Tensor], Tensor]:
        inputs, running = self.inputs(), self.running.clone()
        output = batch_norm_relu_dropout(
            *inputs, running[0], running[1], momentum=MOMENTUM, eps=EPS, dropout_rate=rate
        )
        output.backward(self.grad)
        return output.detach(), [t.grad for t in inputs if t.grad is not None], running

    def by_torch(self, kept: Tensor, rate: float) -> tuple[Tensor, list[Tensor], Tensor]:
        """In double precision; `kept` is zero where a feature was dropped."""
        inputs, running = self.inputs(torch.float64), self.running.double()
        normalized = functional.batch_norm(
            inputs[0], running[0], running[1], inputs[1], inputs[2], True, MOMENTUM, EPS
        )
        output = normalized.relu() * kept / (1 - rate)
        output.backward(self.grad.double())
        return output.detach(), [t.grad for t in inputs if t.grad is not None], running


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("shape", [(2, 1), (3, 5), (7, 45), (128, 128), (301, 200)])
def test_output_gradients_and_statistics_are_those_of_torch(
    shape: tuple[int, int], rate: float, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    case = Case(*shape)
    torch.manual_seed(1)
    output, gradients, running = case.run(rate)
    active = case.by_torch(torch.ones(shape), 0.0)[0] > 1e-6
    kept = ~(active & (output == 0))
    expected, expected_gradients, expected_running = case.by_torch(kept.double(), rate)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(running.double(), expected_running, rtol=1e-6, atol=1e-6)


def test_a_column_far_from_zero_keeps_its_digits() -> None:
    # Sums of squares in single precision would have no digit of the variance left.
    case = Case(200, 40, mean=3000.0)
    output, _, running = case.run(0.0)
    expected, _, expected_running = case.by_torch(torch.ones(200, 40), 0.0)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(running.double(), expected_running, rtol=1e-6, atol=1e-6)


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    case, results = Case(1024, 130), []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        torch.manual_seed(1)
        output, gradients, running = case.run(0.1)
        results.append([output, *gradients, running])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_dropped_features_are_independent_and_as_many_as_asked_for() -> None:
    n_cells, n_columns, rate = 1000, 400, 0.1
    # All features are positive after the normalisation, so every zero was dropped.
    features = torch.randn(n_cells, n_columns)
    ones = torch.ones(n_columns)
    torch.manual_seed(0)
    masks = [
        batch_norm_relu_dropout(
            features, ones, 100 * ones, 0 * ones, ones.clone(), momentum=0.1, eps=EPS,
            dropout_rate=rate,
        ) == 0
        for _ in range(3)
    ]  # fmt: skip
    dropped = torch.stack(masks).double()
    n = dropped[0].numel()
    sd = (rate * (1 - rate) / n) ** 0.5
    assert all(abs(float(d.mean()) - rate) < 5 * sd for d in dropped)
    # By cell and by column the counts have the variance of a binomial distribution.
    for sums, n_each in ((dropped[0].sum(1), n_columns), (dropped[0].sum(0), n_cells)):
        ratio = float(sums.var()) / (n_each * rate * (1 - rate))
        assert abs(ratio - 1) < 5 * (2 / len(sums)) ** 0.5
    # Neighbours in a row, in a column, and the same feature in the next call are uncorrelated.
    centred = dropped - rate
    pairs = (
        (centred[0, :, 1:], centred[0, :, :-1]),
        (centred[0, 1:], centred[0, :-1]),
        (centred[0, 4:], centred[0, :-4]),
        (centred[0], centred[1]),
        (centred[1], centred[2]),
    )
    for a, b in pairs:
        assert abs(float((a * b).mean())) < 5 * rate * (1 - rate) / n**0.5


def test_the_seed_of_torch_decides_what_is_dropped() -> None:
    case = Case(64, 128)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(case.run(0.5)[0])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    state = torch.get_rng_state()
    case.run(0.0)
    assert torch.equal(state, torch.get_rng_state())


def test_random_words_are_those_of_the_published_generator() -> None:
    # First known answers of philox4x32-7, Random123 (Salmon et al. 2011).
    from numba import njit

    from cellvae.kernels.compiled.batch_norm_relu_dropout_numba import philox

    words = njit(lambda a, b, c, d: philox(a, b, c, d))(*(np.uint64(0),) * 4)
    assert [int(word) for word in words] == [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]


def test_values_that_are_not_finite_are_seen() -> None:
    case = Case(16, 20)
    case.features[3, 5] = torch.nan
    output, _, running = case.run(0.0)
    assert output[:, 5].isnan().all() and running[:, 5].isnan().all()
    assert output[:, :5].isfinite().all() and output[:, 6:].isfinite().all()


def test_features_of_any_layout() -> None:
    case = Case(50, 60)
    expected = case.run(0.0)[0]
    norm = nn.BatchNorm1d(60)
    output = batch_norm_relu_dropout(
        case.features.t().contiguous().t(), case.weight, case.bias,
        norm.running_mean, norm.running_var, momentum=MOMENTUM, eps=EPS,
    )  # fmt: skip
    assert torch.equal(output, expected)


class LinearCase(Case):
    """The same after a linear layer with few inputs."""

    def __init__(self, n_cells: int, n_columns: int, n_inputs: int) -> None:
        super().__init__(n_cells, n_columns)
        generator = torch.Generator().manual_seed(2)
        self.features = torch.randn(n_cells, n_inputs, generator=generator)
        self.layer = (
            torch.randn(n_columns, n_inputs, generator=generator),
            torch.randn(n_columns, generator=generator),
        )

    def inputs(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        tensors = (self.features, *self.layer, self.weight, self.bias)
        return [t.to(dtype).detach().clone().requires_grad_() for t in tensors]

    def run(self, rate: float) -> tuple[Tensor, list[Tensor], Tensor]:
        inputs, running = self.inputs(), self.running.clone()
        output = batch_norm_relu_dropout(
            LazyLinear(*inputs[:3]), *inputs[3:], running[0], running[1],
            momentum=MOMENTUM, eps=EPS, dropout_rate=rate,
        )  # fmt: skip
        output.backward(self.grad)
        return output.detach(), [t.grad for t in inputs if t.grad is not None], running

    def by_torch(self, kept: Tensor, rate: float) -> tuple[Tensor, list[Tensor], Tensor]:
        inputs, running = self.inputs(torch.float64), self.running.double()
        features = functional.linear(*inputs[:3])
        normalized = functional.batch_norm(
            features, running[0], running[1], inputs[3], inputs[4], True, MOMENTUM, EPS
        )
        output = normalized.relu() * kept / (1 - rate)
        output.backward(self.grad.double())
        return output.detach(), [t.grad for t in inputs if t.grad is not None], running


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(3, 1, 1), (7, 45, 16), (128, 128, 10), (300, 200, 33)])
def test_a_linear_layer_before_is_that_of_torch(
    shape: tuple[int, int, int], rate: float, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    case = LinearCase(*shape)
    torch.manual_seed(1)
    output, gradients, running = case.run(rate)
    active = case.by_torch(torch.ones(shape[:2]), 0.0)[0] > 1e-5
    kept = ~(active & (output == 0))
    expected, expected_gradients, expected_running = case.by_torch(kept.double(), rate)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-4)
    assert len(gradients) == len(expected_gradients) == 5
    for i, (found, wanted) in enumerate(zip(gradients, expected_gradients, strict=True)):
        # The bias of the linear layer cancels: its gradient is zero but for rounding.
        atol = 1e-3 if i == 2 else 2e-5 * max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(found.double(), wanted, rtol=2e-4, atol=atol)
    torch.testing.assert_close(running.double(), expected_running, rtol=1e-6, atol=1e-6)


def test_a_linear_layer_does_not_depend_on_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        torch.manual_seed(1)
        output, gradients, running = LinearCase(1024, 130, 12).run(0.1)
        results.append([output, *gradients, running])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_inputs_without_gradient_and_frozen_layers() -> None:
    case = LinearCase(64, 40, 5)
    inputs = case.inputs()
    inputs[0], inputs[1] = inputs[0].detach(), inputs[1].detach()
    running = case.running.clone()
    output = batch_norm_relu_dropout(
        LazyLinear(*inputs[:3]), *inputs[3:], running[0], running[1], momentum=MOMENTUM, eps=EPS
    )
    output.backward(case.grad)
    assert [t.grad is None for t in inputs] == [True, True, False, False, False]
    expected = case.by_torch(torch.ones(64, 40), 0.0)[1]
    torch.testing.assert_close(inputs[3].grad.double(), expected[3], rtol=1e-4, atol=1e-3)

"""Layer normalisation, activation and dropout by one kernel, against torch's three functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cellvae.kernels import layer_norm_activation_dropout
from cellvae.kernels.dispatch import can_compile

EPS = 1e-5

if not can_compile("layer_norm_activation_dropout"):  # pragma: no cover - numba is a dependency
    pytest.skip("kernels cannot be compiled here", allow_module_level=True)


class Case:
    """Features and a gradient of the output."""

    def __init__(self, n_cells: int, n_columns: int, mean: float = 3.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(n_cells, n_columns, generator=generator) * 2 + mean
        self.grad = torch.randn(n_cells, n_columns, generator=generator)

    def run(self, slope: float, rate: float) -> tuple[Tensor, Tensor]:
        features = self.features.clone().requires_grad_()
        output = layer_norm_activation_dropout(
            features, eps=EPS, negative_slope=slope, dropout_rate=rate
        )
        output.backward(self.grad)
        assert features.grad is not None
        return output.detach(), features.grad

    def by_torch(self, slope: float, kept: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """In double precision; `kept` is zero where a feature was dropped."""
        features = self.features.double().requires_grad_()
        normalized = functional.layer_norm(features, features.shape[1:], eps=EPS)
        output = functional.leaky_relu(normalized, slope) * kept / (1 - rate)
        output.backward(self.grad.double())
        assert features.grad is not None
        return output.detach(), features.grad


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("slope", [0.0, 0.01, -0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 2), (1, 5), (3, 1), (7, 45), (128, 107), (301, 200)])
def test_output_and_gradient_are_those_of_torch(
    shape: tuple[int, int], slope: float, rate: float, n_threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    case = Case(*shape)
    # With a slope no feature is zero but those that are dropped.
    torch.manual_seed(1)
    kept = case.run(1.0, rate)[0] != 0
    if shape[1] == 1:  # Normalised, it is zero.
        kept[:] = True
    torch.manual_seed(1)
    output, grad = case.run(slope, rate)
    expected, expected_grad = case.by_torch(slope, kept.double(), rate)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-4, atol=2e-5)


def test_rows_of_equal_features_have_the_gradient_of_torch() -> None:
    # Normalised they are zero, as what is dropped; the gradient of those that are kept passes.
    case = Case(64, 24)
    case.features[:] = torch.arange(64)[:, None].float()
    for slope in (0.0, 0.01):
        output, grad = case.run(slope, 0.0)
        expected, expected_grad = case.by_torch(slope, torch.ones(64, 24), 0.0)
        assert torch.equal(output.double(), expected)
        torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-5, atol=1e-5)


def test_a_cell_far_from_zero_keeps_its_digits() -> None:
    # Sums of squares in single precision would have no digit of the variance left.
    case = Case(50, 200, mean=3000.0)
    output, grad = case.run(0.01, 0.0)
    expected, expected_grad = case.by_torch(0.01, torch.ones(50, 200), 0.0)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-3)
    near_zero = expected.abs() < 1e-3
    torch.testing.assert_close(
        grad.double()[~near_zero], expected_grad[~near_zero], rtol=1e-3, atol=1e-3
    )


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    case, results = Case(1027, 130), []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        torch.manual_seed(1)
        results.append(case.run(0.01, 0.1))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_features_are_dropped_as_behind_a_batch_norm() -> None:
    # The same function of the seed, the cell and the column, whose quality is tested there.
    from cellvae.kernels import batch_norm_relu_dropout

    features, ones = torch.randn(90, 77), torch.ones(77)
    torch.manual_seed(3)
    dropped = (
        layer_norm_activation_dropout(features, eps=EPS, negative_slope=1.0, dropout_rate=0.3) == 0
    )
    torch.manual_seed(3)
    expected = (
        batch_norm_relu_dropout(
            features,
            ones,
            100 * ones,
            0 * ones,
            ones.clone(),
            momentum=0.1,
            eps=EPS,
            dropout_rate=0.3,
        )
        == 0
    )
    assert torch.equal(dropped, expected)
    assert abs(float(dropped.float().mean()) - 0.3) < 5 * (0.21 / dropped.numel()) ** 0.5


def test_the_seed_of_torch_decides_what_is_dropped() -> None:
    case, outputs = Case(64, 128), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(case.run(0.01, 0.5)[0])
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    state = torch.get_rng_state()
    case.run(0.01, 0.0)
    assert torch.equal(state, torch.get_rng_state())


def test_values_that_are_not_finite_are_seen() -> None:
    case = Case(16, 20)
    case.features[3, 5], case.features[4, 6] = torch.nan, torch.inf
    output, grad = case.run(0.01, 0.0)
    assert output[3:5].isnan().any(1).all() and grad[3:5].isnan().any(1).all()
    others = np.delete(np.arange(16), [3, 4])
    assert output[others].isfinite().all() and grad[others].isfinite().all()


def test_features_and_gradients_of_any_layout() -> None:
    case = Case(50, 60)
    expected = case.run(0.01, 0.0)
    case.features = case.features.t().contiguous().t()
    case.grad = case.grad.t().contiguous().t()
    found = case.run(0.01, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

"""Batch normalisation of one cell and of many, against torch's own and a closed form."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from cellvae.kernels import Kernel
from cellvae.nn.layers import BatchNorm, FCLayer, SparseInputLinear


def both(n_features: int = 4) -> tuple[BatchNorm, nn.BatchNorm1d]:
    """Our layer and torch's, with the same weights and running statistics."""
    torch.manual_seed(0)
    theirs = nn.BatchNorm1d(n_features, momentum=0.01, eps=0.001)
    for tensor in (theirs.weight.data, theirs.bias.data, theirs.running_mean, theirs.running_var):
        assert tensor is not None
        tensor.copy_(torch.rand(n_features) + 0.5)
    ours = BatchNorm(n_features, momentum=0.01, eps=0.001)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_batches_of_two_cells_and_more_are_those_of_torch() -> None:
    ours, theirs = both()
    for n_cells in (2, 3, 50):
        features = torch.randn(n_cells, 4)
        assert torch.equal(ours(features), theirs(features))
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())
    assert torch.equal(ours.eval()(features[:1]), theirs.eval()(features[:1]))


def test_one_cell_is_normalised_by_the_running_statistics_which_stay() -> None:
    ours, _ = both()
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    features = torch.randn(1, 4, requires_grad=True)
    result = ours(features)
    mean, variance = before["running_mean"], before["running_var"]
    factor = before["weight"] / (variance + 0.001).sqrt()
    torch.testing.assert_close(result, (features - mean) * factor + before["bias"])
    result.sum().backward()
    assert features.grad is not None and ours.weight.grad is not None
    torch.testing.assert_close(features.grad[0], factor)
    torch.testing.assert_close(ours.weight.grad, ((features - mean) / (variance + 0.001).sqrt())[0])
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())


def layer_and_sequence(n_out: int = 128, **changes: nn.Module) -> tuple[FCLayer, nn.Sequential]:
    """A layer without dropout, and the same modules in a plain sequence."""
    torch.manual_seed(0)
    modules = {
        "linear": SparseInputLinear(30, n_out), "norm": BatchNorm(n_out, momentum=0.01, eps=0.001),
        "layer norm": nn.Identity(), "activation": nn.ReLU(), "dropout": nn.Identity(), **changes,
    }  # fmt: skip
    return FCLayer(*modules.values()), nn.Sequential(*map(deepcopy, modules.values()))


@pytest.fixture
def n_kernels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each run of the kernel."""
    runs: list[int] = []

    def counting(self: FCLayer, hidden: Tensor, kernel: Kernel) -> Tensor:
        runs.append(1)
        return run_kernel(self, hidden, kernel)

    run_kernel = FCLayer.run_kernel
    monkeypatch.setattr(FCLayer, "run_kernel", counting)
    return runs


def assert_same_step(layer: FCLayer, sequence: nn.Sequential, features: Tensor) -> None:
    """Outputs, gradients and running statistics are equal up to rounding."""
    found, expected = layer(features), sequence(features)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for mine, other in zip(layer.parameters(), sequence.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)
    for mine, other in zip(layer.buffers(), sequence.buffers(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_a_layer_runs_as_one_kernel_in_training(n_kernels: list[int]) -> None:
    layer, sequence = layer_and_sequence()
    assert list(layer.state_dict()) == list(sequence.state_dict())
    assert_same_step(layer, sequence, torch.randn(100, 30))
    assert len(n_kernels) == 1
    with torch.no_grad():
        assert torch.equal(layer.eval()(torch.ones(100, 30)), layer(torch.ones(100, 30)))
    assert len(n_kernels) == 1


LAYER_NORM = {"norm": nn.Identity(), "layer norm": nn.LayerNorm(128, elementwise_affine=False)}


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.LeakyReLU(), nn.LeakyReLU(0.3), nn.Identity()]
)
def test_a_layer_with_layer_norm_runs_as_one_kernel_in_training(
    activation: nn.Module, n_kernels: list[int]
) -> None:
    layer, sequence = layer_and_sequence(**LAYER_NORM, activation=activation)
    assert_same_step(layer, sequence, torch.randn(100, 30))
    assert len(n_kernels) == 1
    layer.eval()(torch.ones(100, 30))
    assert len(n_kernels) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": nn.BatchNorm1d(128)},
        {"norm": nn.Identity()},
        {"norm": BatchNorm(128, affine=False)},
        {"norm": BatchNorm(128, momentum=None)},
        {"norm": BatchNorm(128, track_running_stats=False)},
        {"norm": BatchNorm(128).eval()},
        {"layer norm": nn.LayerNorm(128, elementwise_affine=False)},
        {"norm": nn.Identity(), "layer norm": nn.LayerNorm(128)},
        {"norm": nn.Identity(), "layer norm": nn.LayerNorm((100, 128), elementwise_affine=False)},
        {**LAYER_NORM, "activation": nn.ELU()},
        {**LAYER_NORM, "dropout": nn.Dropout(1.0)},
        {"activation": nn.LeakyReLU()},
        {"dropout": nn.Dropout(1.0)},
    ],
    ids=lambda changes: "{}: {}".format(*[*changes.items()][-1]),
)
def test_other_modules_are_called_one_after_the_other(
    changes: dict[str, nn.Module], n_kernels: list[int]
) -> None:
    assert_same_step(*layer_and_sequence(**changes), torch.randn(100, 30))
    assert not n_kernels


@pytest.mark.parametrize("changes", [{}, LAYER_NORM], ids=["batch norm", "layer norm"])
def test_hooks_of_the_modules_run(changes: dict[str, nn.Module], n_kernels: list[int]) -> None:
    layer, sequence = layer_and_sequence(**changes)
    seen: list[Tensor] = []
    layer[3].register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert_same_step(layer, sequence, torch.randn(100, 30))
    assert len(seen) == 1 and not n_kernels


@pytest.mark.parametrize("n_cells", [1, 2, 20])
def test_small_batches_are_left_to_torch(n_cells: int, n_kernels: list[int]) -> None:
    layer, sequence = layer_and_sequence()
    features = torch.randn(n_cells, 30)
    assert torch.equal(layer(features), sequence(features)) and not n_kernels


@pytest.mark.parametrize("changes", [{}, LAYER_NORM], ids=["batch norm", "layer norm"])
def test_a_dropout_in_eval_mode_drops_nothing(
    changes: dict[str, nn.Module], n_kernels: list[int]
) -> None:
    layer, sequence = layer_and_sequence(**changes, dropout=nn.Dropout(0.5).eval())
    assert_same_step(layer, sequence, torch.randn(100, 30))
    assert len(n_kernels) == 1


def test_a_layer_with_layer_norm_drops_features(n_kernels: list[int]) -> None:
    layer, sequence = layer_and_sequence(
        **LAYER_NORM, activation=nn.LeakyReLU(), dropout=nn.Dropout(0.5)
    )
    features = torch.randn(100, 30)
    found, expected = layer(features), 2 * sequence[:-1](features)
    dropped = found == 0
    assert len(n_kernels) == 1 and 0.45 < dropped.float().mean() < 0.55
    torch.testing.assert_close(found[~dropped], expected[~dropped], rtol=1e-5, atol=1e-5)

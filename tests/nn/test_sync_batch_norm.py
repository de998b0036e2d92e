"""Batch normalisation of several processes, threads here, against one that has all cells."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cellvae.nn import Encoder
from cellvae.nn.layers import BatchNorm, FCLayer
from cellvae.nn.sync_batch_norm import ProcessSums, SyncBatchNorm, synchronise_batch_norm


class SumsOfThreads:
    """Adds tensors up over threads, each of which stands for a process."""

    def __init__(self, n: int) -> None:
        self.barrier = threading.Barrier(n, timeout=20)
        self.sent: list[Tensor] = []
        self.messages = 0

    def add_up(self, own: Tensor) -> Tensor:
        if self.barrier.wait() == 0:
            self.sent = []
            self.messages += 1
        self.barrier.wait()
        self.sent.append(own)
        self.barrier.wait()
        return torch.stack(self.sent).sum(0)


def run_in_threads(n: int, function: Callable[[int, SumsOfThreads], Any]) -> list[Any]:
    sums = SumsOfThreads(n)
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda rank: function(rank, sums), range(n)))


def make_layer(dtype: torch.dtype = torch.float64, **options: Any) -> nn.BatchNorm1d:
    torch.manual_seed(0)
    layer = BatchNorm(5, momentum=0.1, eps=0.001, **options).to(dtype)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        if tensor is not None:
            tensor.data.copy_(torch.rand(5) + 0.5)
    return layer


def synchronised(layer: nn.Module, sums: Any) -> nn.Module:
    """Copy of a network whose layers are synchronised by the given sums, for good."""
    made = copy.deepcopy(layer)
    for part in made.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.__class__ = SyncBatchNorm
            part.sums = sums
    return made


OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"affine": False}, {"track_running_stats": False},
)  # fmt: skip


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (7, 1), (8, 0), (1, 1), (2, 3, 1)])
@pytest.mark.parametrize("options", OPTIONS)
def test_outputs_gradients_and_statistics_are_those_of_all_cells_together(
    sizes: tuple[int, ...], options: dict[str, Any]
) -> None:
    whole = make_layer(**options)
    torch.manual_seed(1)
    features = (torch.randn(sum(sizes), 5, dtype=torch.float64) * 2 + 30).requires_grad_()
    coefficients = torch.randn(sum(sizes), 5, dtype=torch.float64)
    expected = nn.BatchNorm1d.forward(whole, features)
    # Not linear, so that the gradient of the output differs by cell.
    (coefficients * expected.square()).sum().backward()
    parts, weights = features.detach().split(sizes), coefficients.split(sizes)
    before = make_layer(**options)

    def one_process(rank: int, sums: SumsOfThreads) -> Any:
        layer = synchronised(before, sums)
        own = parts[rank].clone().requires_grad_()
        output = layer(own)
        (weights[rank] * output.square()).sum().backward()
        return layer, output, own.grad

    found = run_in_threads(len(sizes), one_process)
    close = torch.testing.assert_close
    close(torch.cat([output for _, output, _ in found]), expected, rtol=1e-11, atol=1e-11)
    assert features.grad is not None
    close(torch.cat([grad for _, _, grad in found]), features.grad, rtol=1e-9, atol=1e-10)
    for name, value in whole.named_buffers():
        for layer, _, _ in found:
            close(dict(layer.named_buffers())[name], value, rtol=1e-12, atol=0)
    for name, parameter in whole.named_parameters():
        total = sum(dict(layer.named_parameters())[name].grad for layer, _, _ in found)
        close(total, parameter.grad, rtol=1e-9, atol=1e-10)


def test_momentum_of_none_averages_all_batches() -> None:
    whole = make_layer()
    whole.momentum = None
    before = copy.deepcopy(whole)
    torch.manual_seed(1)
    batches = torch.randn(3, 8, 5, dtype=torch.float64)
    for batch in batches:
        nn.BatchNorm1d.forward(whole, batch)

    def one_process(rank: int, sums: SumsOfThreads) -> Any:
        layer = synchronised(before, sums)
        for batch in batches:
            layer(batch[rank * 3 : rank * 3 + (3 if rank == 0 else 5)])
        return layer

    for layer in run_in_threads(2, one_process):
        for own, expected in zip(layer.buffers(), whole.buffers(), strict=True):
            torch.testing.assert_close(own, expected)


def test_single_precision_keeps_the_variance_beside_a_large_mean() -> None:
    before = make_layer(torch.float32)
    torch.manual_seed(1)
    features = torch.randn(64, 5) + 3000
    expected = nn.functional.batch_norm(
        features.double(), None, None, before.weight.double(), before.bias.double(), True, eps=0.001
    )
    outputs = run_in_threads(
        2, lambda rank, sums: synchronised(before, sums)(features[rank * 32 : rank * 32 + 32])
    )
    assert outputs[0].dtype == torch.float32
    # The mean is rounded to single precision, half of 2^-12 here.
    torch.testing.assert_close(torch.cat(outputs).double(), expected, rtol=0, atol=2e-4)
    halves = features.bfloat16()
    assert all(
        output.dtype == torch.bfloat16
        for output in run_in_threads(2, lambda rank, sums: synchronised(before, sums)(halves))
    )


def test_one_cell_in_all_processes_is_normalised_by_the_running_statistics() -> None:
    before = make_layer()
    cell = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    expected = before(cell)
    expected.square().sum().backward()

    def one_process(rank: int, sums: SumsOfThreads) -> Any:
        layer = synchronised(before, sums)
        own = cell.detach()[rank:].clone().requires_grad_()
        output = layer(own)
        output.square().sum().backward()
        return layer, output, own.grad

    (layer, output, grad), (empty, nothing, _) = run_in_threads(2, one_process)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grad, cell.grad)
    assert nothing.shape == (0, 5)
    for each in (layer, empty):
        for own, start in zip(each.buffers(), before.buffers(), strict=True):
            assert torch.equal(own, start)


def test_an_encoder_has_the_gradients_of_one_process_and_two_messages_a_layer() -> None:
    torch.manual_seed(0)
    encoder = Encoder(9, 3, (2,), n_layers=2, n_hidden=8, dropout_rate=0.0).double()
    features, codes = torch.rand(10, 9, dtype=torch.float64), torch.arange(10).view(-1, 1) % 2
    before = copy.deepcopy(encoder)

    def loss(network: nn.Module, chosen: slice) -> Tensor:
        posterior = network(features[chosen], [codes[chosen]])
        total: Tensor = (posterior.loc.square() + posterior.scale).sum()
        return total

    loss(encoder, slice(None)).backward()
    messages = []

    def one_process(rank: int, sums: SumsOfThreads) -> Any:
        network = synchronised(before, sums)
        loss(network, slice(0, 7) if rank == 0 else slice(7, 10)).backward()
        messages.append(sums.messages)
        return [p.grad for p in network.parameters()]

    first, second = run_in_threads(2, one_process)
    for parameter, one, other in zip(encoder.parameters(), first, second, strict=True):
        torch.testing.assert_close(one + other, parameter.grad)
    assert messages == [4, 4]


def test_positions_of_a_feature_count_as_cells() -> None:
    before = make_layer()
    features = torch.randn(6, 5, 4, dtype=torch.float64)
    expected = nn.BatchNorm1d.forward(copy.deepcopy(before), features)
    outputs = run_in_threads(
        2, lambda rank, sums: synchronised(before, sums)(features[rank * 3 : rank * 3 + 3])
    )
    torch.testing.assert_close(torch.cat(outputs), expected)


def test_layers_are_synchronised_within_the_context_alone_and_eval_mode_exchanges_nothing() -> None:
    network = nn.Sequential(
        FCLayer(nn.Linear(5, 5), make_layer(), nn.Identity(), nn.ReLU(), nn.Identity()).double(),
        nn.BatchNorm1d(5),
        nn.InstanceNorm1d(5),
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert network[0].find_kernel(torch.ones(3, 5)) == "batch_norm_relu_dropout"
    with synchronise_batch_norm(network):
        norms = [part for part in network.modules() if isinstance(part, SyncBatchNorm)]
        assert len(norms) == 2 and network[0].find_kernel(torch.ones(3, 5)) is None
        assert list(network.state_dict()) == list(before)
        # A copy would exchange in a group of its own: none has been created.
        assert all(isinstance(part.sums, ProcessSums) for part in norms)
        copied = pickle.loads(pickle.dumps(copy.deepcopy(norms[0])))
        assert copied.sums is not norms[0].sums and copied.sums.group is None
        network.eval()
        assert torch.isfinite(norms[1](torch.randn(3, 5))).all()
    network.train()
    assert type(network[0][1]) is BatchNorm and type(network[1]) is nn.BatchNorm1d
    assert not any(hasattr(part, "sums") for part in network.modules())
    assert network[0].find_kernel(torch.ones(3, 5)) == "batch_norm_relu_dropout"
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(RuntimeError, match="error"), synchronise_batch_norm(network):
        raise RuntimeError("error")
    assert type(network[1]) is nn.BatchNorm1d

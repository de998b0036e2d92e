"""Batch normalisation of one cell and of many, against torch's own and a closed form."""

from __future__ import annotations

import torch
from torch import nn

from cellvae.nn.layers import BatchNorm


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

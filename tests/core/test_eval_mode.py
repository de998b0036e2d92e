"""Eval mode of a network for a while."""

from __future__ import annotations

import pytest
from torch import nn

from cellvae.core.eval_mode import eval_mode


def test_each_layer_returns_to_its_mode_also_after_an_error() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2), nn.Linear(2, 2)).train()
    network[1].eval()
    modes = [layer.training for layer in network.modules()]
    with eval_mode(network):
        assert not any(layer.training for layer in network.modules())
    assert [layer.training for layer in network.modules()] == modes
    with pytest.raises(ValueError, match="an error"), eval_mode(network):
        raise ValueError("an error")
    assert [layer.training for layer in network.modules()] == modes

"""Layers computed by hand, in numpy and double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cellvae.nn import FCLayers

Array = NDArray[np.float64]


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def indicators(codes: Sequence[torch.Tensor], sizes: Sequence[int]) -> list[Array]:
    """Indicator columns, one category after the other; none for a single category."""
    return [np.eye(n)[code.numpy().ravel()] for code, n in zip(codes, sizes, strict=True) if n > 1]


def layers_by_hand(
    layers: FCLayers,
    features: Array,
    codes: Sequence[torch.Tensor],
    sizes: Sequence[int],
    every: bool,
) -> Array:
    """What the layers give in eval mode for [cells, features]."""
    for i, layer in enumerate(layers.fc_layers):
        columns = indicators(codes, sizes) if i == 0 or every else []
        features = np.concatenate([features, *columns], axis=1)
        linear, batch_norm, layer_norm = layer[0], layer[1], layer[2]
        features = features @ array(linear.weight).T + array(linear.bias)
        if isinstance(batch_norm, nn.BatchNorm1d):
            scale = np.sqrt(array(batch_norm.running_var) + 1e-3)
            features = (features - array(batch_norm.running_mean)) / scale
            features = features * array(batch_norm.weight) + array(batch_norm.bias)
        if isinstance(layer_norm, nn.LayerNorm):
            mean, variance = features.mean(axis=1), features.var(axis=1)
            features = (features - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
        features = np.maximum(features, 0)
    return features


@pytest.fixture
def by_hand() -> Callable[..., Array]:
    return layers_by_hand


@pytest.fixture
def worn() -> Callable[[nn.Module], nn.Module]:
    """Give batch normalisation statistics and weights as after training."""

    def wear(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d):
                shape = part.weight.shape
                part.running_mean = torch.randn(shape, generator=generator)
                part.running_var = torch.rand(shape, generator=generator) + 0.5
                nn.init.normal_(part.weight, 1, 0.2, generator=generator)
                nn.init.normal_(part.bias, 0, 0.2, generator=generator)
        return module.eval()

    return wear


@pytest.fixture
def codes() -> list[torch.Tensor]:
    """Codes of 9 cells in covariates of 3, 1 and 2 categories."""
    cells = torch.arange(9)[:, None]
    return [cells % 3, torch.zeros_like(cells), (cells + 1) % 2]

"""Fully connected layers against the same sums in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cellvae.nn import FCLayers
from cellvae.nn.covariates import concat_covariates, one_hot, one_hot_covariates

SIZES = (3, 1, 2)


@pytest.mark.parametrize("every_layer", [True, False])
@pytest.mark.parametrize(("batch_norm", "layer_norm"), [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_layers_are_those_computed_by_hand(
    every_layer: bool,
    batch_norm: bool,
    layer_norm: bool,
    codes: list[Tensor],
    by_hand: Callable[..., np.ndarray],
    worn: Callable[[nn.Module], nn.Module],
) -> None:
    torch.manual_seed(0)
    layers = FCLayers(
        4, 5, SIZES, n_layers=3, n_hidden=7, use_batch_norm=bool(batch_norm),
        use_layer_norm=bool(layer_norm), inject_covariates=every_layer,
    )  # fmt: skip
    worn(layers)
    features = torch.randn(9, 4)
    expected = by_hand(layers, features.double().numpy(), codes, SIZES, every_layer)
    np.testing.assert_allclose(layers(features, codes).detach(), expected, rtol=1e-4, atol=1e-5)


def test_covariates_widen_the_layers_that_read_them() -> None:
    def widths(**kwargs: bool) -> list[int]:
        layers = FCLayers(4, 5, SIZES, n_layers=3, n_hidden=7, **kwargs)
        return [layer[0].in_features for layer in layers.fc_layers]

    assert widths() == [4 + 5, 7 + 5, 7 + 5]
    assert widths(inject_covariates=False) == [4 + 5, 7, 7]


def test_a_covariate_of_one_category_adds_no_column(codes: list[Tensor]) -> None:
    torch.manual_seed(0)
    layers = FCLayers(4, 5, SIZES, dropout_rate=0.0).eval()
    torch.manual_seed(0)
    without = FCLayers(4, 5, (3, 2), dropout_rate=0.0).eval()
    features = torch.randn(9, 4)
    assert layers.fc_layers[0][0].in_features == 4 + 3 + 2
    assert torch.equal(layers(features, codes), without(features, [codes[0], codes[2]]))
    assert FCLayers(4, 5, (1,)).fc_layers[0][0].in_features == 4


def test_without_covariates_none_are_read() -> None:
    layers = FCLayers(4, 5, n_layers=2, n_hidden=6).eval()
    assert layers(torch.randn(9, 4)).shape == (9, 5)


def test_the_number_of_covariates_has_to_fit(codes: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="argument 2"):
        FCLayers(4, 5, SIZES)(torch.randn(9, 4), codes[:2])


@pytest.mark.parametrize("samples", [(), (2,), (2, 3)])
def test_samples_go_through_as_one_by_one(
    samples: tuple[int, ...], codes: list[Tensor], worn: Callable[[nn.Module], nn.Module]
) -> None:
    torch.manual_seed(0)
    layers = worn(FCLayers(4, 5, SIZES, n_layers=2, n_hidden=7))
    features = torch.randn(*samples, 9, 4)
    out = layers(features, codes)
    assert out.shape == (*samples, 9, 5)
    each = torch.stack([layers(one, codes) for one in features.reshape(-1, 9, 4)])
    torch.testing.assert_close(out.reshape(-1, 9, 5), each)


def test_batch_statistics_follow_scvi_tools_momentum_and_epsilon() -> None:
    norm = FCLayers(4, 5).fc_layers[0][1]
    assert (norm.momentum, norm.eps) == (0.01, 0.001)
    assert not FCLayers(4, 5, use_layer_norm=True).fc_layers[0][2].elementwise_affine


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    layers = FCLayers(4, 400, dropout_rate=0.5, use_batch_norm=False)
    features = torch.randn(9, 4)
    output = layers.eval()(features)
    dropped = layers.train()(features)
    assert torch.equal(output, layers.eval()(features))
    positive = output > 0
    fraction = (dropped[positive] == 0).double().mean().item()
    assert abs(fraction - 0.5) < 4 * 0.5 / positive.sum().item() ** 0.5
    left = positive & (dropped > 0)
    torch.testing.assert_close(dropped[left], 2 * output[left])
    assert isinstance(FCLayers(4, 5, dropout_rate=0.0).fc_layers[0][4], nn.Identity)


def test_names_of_parameters_are_those_of_scvi_tools() -> None:
    names = [name for name, _ in FCLayers(4, 5, n_layers=2).named_parameters()]
    kinds = ("0.weight", "0.bias", "1.weight", "1.bias")
    assert names == [f"fc_layers.Layer {i}.{kind}" for i in (0, 1) for kind in kinds]


def test_one_hot_columns_are_those_of_the_identity(codes: list[Tensor]) -> None:
    columns = one_hot_covariates(codes, SIZES)
    assert columns is not None
    expected = np.concatenate([np.eye(3)[np.arange(9) % 3], np.eye(2)[np.arange(1, 10) % 2]], 1)
    assert np.array_equal(columns.numpy(), expected)
    assert np.array_equal(one_hot(codes[0], 4).numpy(), np.eye(4)[np.arange(9) % 3])
    assert one_hot_covariates([codes[1]], [1]) is None
    assert one_hot_covariates([], []) is None


def test_columns_stand_beside_every_sample() -> None:
    features, columns = torch.randn(2, 9, 4), torch.randn(9, 3)
    joined = concat_covariates(features, columns)
    assert joined.shape == (2, 9, 7)
    assert torch.equal(joined[..., :4], features)
    assert torch.equal(joined[0, :, 4:], columns)
    assert torch.equal(joined[1, :, 4:], columns)
    assert concat_covariates(features, None) is features

"""Decoder against the same sums in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cellvae.kernels import LazyLinear
from cellvae.nn import DecoderSCVI

SIZES = (3, 1, 2)


def decoder(**kwargs: object) -> DecoderSCVI:
    torch.manual_seed(0)
    return DecoderSCVI(2, 6, SIZES, n_hidden=5, n_layers=2, **kwargs)


@pytest.mark.parametrize("activation", ["softmax", "softplus"])
@pytest.mark.parametrize("every_layer", [True, False])
def test_parameters_of_the_counts_are_those_computed_by_hand(
    activation: str,
    every_layer: bool,
    codes: list[Tensor],
    by_hand: Callable[..., np.ndarray],
    worn: Callable[[nn.Module], nn.Module],
) -> None:
    network = decoder(
        scale_activation=activation, dispersion_per_cell=True, inject_covariates=every_layer
    )
    worn(network)
    z, log_size = torch.randn(9, 2), torch.rand(9, 1) * 5
    hidden = by_hand(network.px_decoder, z.double().numpy(), codes, SIZES, every_layer)
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}

    def head(name: str) -> np.ndarray:
        return hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    raw = head("px_scale_decoder.0")
    scale = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    if activation == "softplus":
        scale = np.log1p(np.exp(raw))
    with torch.no_grad():
        found = network(z, log_size, codes)
    close = {"rtol": 1e-4, "atol": 1e-6}
    np.testing.assert_allclose(found.scale, scale, **close)
    np.testing.assert_allclose(found.rate, np.exp(log_size.double().numpy()) * scale, **close)
    np.testing.assert_allclose(found.log_dispersion, head("px_r_decoder"), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.dropout, head("px_dropout_decoder"), rtol=1e-4, atol=1e-5)


def test_fractions_add_up_to_one_and_rates_to_the_library_size(codes: list[Tensor]) -> None:
    log_size = torch.linspace(0, 8, 9)[:, None]
    found = decoder().eval()(torch.randn(9, 2), log_size, codes)
    torch.testing.assert_close(found.scale.sum(dim=1), torch.ones(9))
    torch.testing.assert_close(found.rate.sum(dim=1), log_size.exp().squeeze(1))


def test_heads_that_are_not_used_are_not_made(codes: list[Tensor]) -> None:
    network = decoder(zero_inflation=False)
    assert {name.partition(".")[0] for name in network.state_dict()} == {
        "px_decoder",
        "px_scale_decoder",
    }
    found = network(torch.randn(9, 2), torch.zeros(9, 1), codes)
    assert found.log_dispersion is None
    assert found.dropout is None


def test_the_decoder_has_no_dropout() -> None:
    assert not any(isinstance(part, nn.Dropout) for part in decoder().modules())


@pytest.mark.parametrize("samples", [(4,), (2, 3)])
def test_samples_are_decoded_as_one_by_one(samples: tuple[int, ...], codes: list[Tensor]) -> None:
    network = decoder(dispersion_per_cell=True).eval()
    z, log_size = torch.randn(*samples, 9, 2), torch.rand(*samples, 9, 1)
    found = network(z, log_size, codes)
    pairs = zip(z.reshape(-1, 9, 2), log_size.reshape(-1, 9, 1), strict=True)
    each = [network(one, size, codes) for one, size in pairs]
    for name in found._fields:
        together = getattr(found, name)
        assert together.shape == (*samples, 9, 6)
        alone = torch.stack([getattr(one, name) for one in each])
        torch.testing.assert_close(together.reshape(-1, 9, 6), alone)


def test_samples_may_have_the_same_library_sizes(codes: list[Tensor]) -> None:
    network = decoder().eval()
    z, log_size = torch.randn(4, 9, 2), torch.rand(9, 1)
    shared = network(z, log_size.expand(4, 9, 1), codes)
    torch.testing.assert_close(shared.rate[2], network(z[2], log_size, codes).rate)


def test_output_layers_are_lazy_unless_they_have_hooks_or_are_replaced() -> None:
    made = decoder(zero_inflation=True).eval()
    z, codes = torch.randn(4, 2), [torch.zeros(4, 1, dtype=torch.int64) for _ in SIZES]
    raw = made.logits(z, codes)
    assert isinstance(raw.logits, LazyLinear)
    assert isinstance(raw.dropout, LazyLinear)
    seen = []
    handle = made.px_scale_decoder[0].register_forward_hook(lambda *given: seen.append(given[2]))
    watched = made.logits(z, codes)
    assert watched.logits is seen[0]
    assert torch.equal(watched.logits, raw.logits.materialize())
    assert isinstance(watched.dropout, LazyLinear)
    handle.remove()
    torch.nn.utils.parametrizations.weight_norm(made.px_dropout_decoder)
    assert isinstance(made.logits(z, codes).dropout, Tensor)
    assert isinstance(made.logits(z, codes).logits, LazyLinear)

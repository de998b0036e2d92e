"""Normal posterior: mean and variance as one function, against the layers one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cellvae.nn.posterior import MAX_LOG_VARIANCE, can_fuse_heads, normal_posterior


def heads() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(7, 3), nn.Linear(7, 3)


def test_parameters_and_gradients_are_those_of_the_layers() -> None:
    mean, log_variance = heads()
    # Log-variances on both sides of the bound.
    hidden = 10 * torch.randn(64, 7)
    by_loc, by_scale = torch.randn(64, 3), torch.randn(64, 3)
    found: list[list[Tensor]] = []
    for dtype in (torch.float32, torch.float64):
        given = hidden.clone().to(dtype).requires_grad_()
        layers = [layer.to(dtype) for layer in (mean, log_variance)]
        assert can_fuse_heads(given, *layers)
        if dtype == torch.float32:
            posterior = normal_posterior(given, *layers)
            loc, scale = posterior.loc, posterior.scale
        else:
            loc = layers[0](given)
            scale = (layers[1](given).clamp(max=MAX_LOG_VARIANCE).exp() + 1e-4).sqrt()
        parameters = [p for layer in layers for p in layer.parameters()]
        bounded = scale.detach().log() < 10
        (loc * by_loc + scale * by_scale * bounded).sum().backward()
        found.append(
            [t.detach().double() for t in (loc, scale, given.grad, *(p.grad for p in parameters))]  # type: ignore[union-attr]
        )
        for parameter in parameters:
            parameter.grad = None
    for mine, exact in zip(*found, strict=True):
        torch.testing.assert_close(mine, exact, rtol=2e-4, atol=1e-6 * float(exact.abs().max()))


def test_a_variance_at_its_bound_has_no_gradient() -> None:
    mean, log_variance = heads()
    with torch.no_grad():
        log_variance.weight.zero_()
        log_variance.bias.copy_(torch.tensor([MAX_LOG_VARIANCE + 1, 90.0, 1.0]))
    posterior = normal_posterior(torch.randn(5, 7), mean, log_variance)
    posterior.scale.sum().backward()
    assert torch.isfinite(posterior.scale.square()).all()
    assert log_variance.bias.grad is not None
    assert (log_variance.bias.grad != 0).tolist() == [False, False, True]


def test_frozen_parts_get_no_gradient() -> None:
    mean, log_variance = heads()
    log_variance.weight.requires_grad_(requires_grad=False)
    hidden = torch.randn(5, 7)
    normal_posterior(hidden, mean, log_variance).scale.sum().backward()
    assert hidden.grad is None and log_variance.weight.grad is None
    assert log_variance.bias.grad is not None


@pytest.mark.parametrize("which", ["hook", "subclass", "bias", "samples"])
def test_layers_that_do_more_are_called(which: str) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    mean, log_variance = heads()
    hidden = torch.randn(2, 5, 7) if which == "samples" else torch.randn(5, 7)
    expected = mean(hidden)
    if which == "hook":
        mean.register_forward_hook(lambda module, inputs, output: 2 * output)
        expected = 2 * expected
    elif which == "subclass":
        doubled = Doubled(7, 3)
        doubled.load_state_dict(mean.state_dict())
        mean, expected = doubled, 2 * expected
    elif which == "bias":
        mean.bias = None  # type: ignore[assignment]
        expected = mean(hidden)
    assert not can_fuse_heads(hidden, mean, log_variance)
    torch.testing.assert_close(normal_posterior(hidden, mean, log_variance).loc, expected)

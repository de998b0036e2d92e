"""Normal posterior: mean and variance as one function, against the layers one after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cellvae.distributions.normal import kl_of_cells, kl_to_standard_normal
from cellvae.kernels import PosteriorSample, sample_posterior
from cellvae.nn import Encoder
from cellvae.nn import posterior as posterior_module
from cellvae.nn.posterior import MAX_LOG_VARIANCE, can_fuse_heads, normal_posterior
from cellvae.settings import settings


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


class Calls:
    """Encoder whose heads are large enough for a kernel, and the calls of that kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        self.encoder = Encoder(300, 10, n_hidden=128)
        self.features = torch.rand(128, 300)
        self.n_calls = 0

        def counted(*args: Any, **kwargs: Any) -> PosteriorSample:
            self.n_calls += 1
            return sample_posterior(*args, **kwargs)

        monkeypatch.setattr(posterior_module, "sample_posterior", counted)

    def run(self) -> tuple[Tensor, Tensor]:
        """Sample and divergence of the cells."""
        torch.manual_seed(1)
        posterior, sample = self.encoder.sample(self.features)
        return sample, kl_of_cells(posterior)


@pytest.mark.parametrize("case", ["no gradient", "setting", "hook", "hook of a head", "softplus"])
def test_sample_and_divergence_are_the_same_with_and_without_the_kernel(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    calls.encoder.eval()
    if case == "softplus":
        calls.encoder.var_activation = "softplus"
        sample, kl = calls.run()
        assert calls.n_calls == 0
        torch.manual_seed(1)
        posterior = calls.encoder(calls.features)
        assert torch.equal(sample, posterior.rsample())
        assert torch.equal(kl, kl_to_standard_normal(posterior).sum(dim=-1))
        return
    sample, kl = calls.run()
    assert calls.n_calls == 1
    seen: list[str] = []
    if case == "hook":
        calls.encoder.register_forward_hook(lambda *_: seen.append("encoder"))
    if case == "hook of a head":
        calls.encoder.mean_encoder.register_forward_hook(lambda *_: seen.append("head"))
    if case == "setting":
        monkeypatch.setitem(settings.values, "kernels", "torch")
    with torch.set_grad_enabled(case != "no gradient"):
        other, other_kl = calls.run()
    assert calls.n_calls == 1 and len(seen) == int("hook" in case)
    torch.testing.assert_close(other, sample, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other_kl, kl, rtol=1e-5, atol=1e-5)

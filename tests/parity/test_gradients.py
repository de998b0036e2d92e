"""Gradients of the loss and running statistics in training mode, beside those of scvi-tools."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

from cellvae.model.scvi import SCVIModule


def stepped(case: Any) -> tuple[SCVIModule, Tensor]:
    """Network with gradients of the loss of its cells, and the loss; nothing is dropped out."""
    module = case.module(dropout_rate=0.0).train()
    loss = module.loss(case.batch(), torch.tensor(case.about["kl_weight"])).loss
    loss.backward()
    return module, loss.detach()


def shifts_taken_away(module: SCVIModule) -> set[str]:
    """Biases that a normalisation of the batch takes away: their gradient is mostly rounding.

    These are the biases right before one, and the mean of the latent before that of the decoder.
    """
    norms = [name for name, part in module.named_modules() if isinstance(part, nn.BatchNorm1d)]
    biases = {name.removesuffix("1") + "0.bias" for name in norms}
    decoded = any(name.startswith("decoder.") for name in norms)
    return biases | ({"z_encoder.mean_encoder.bias"} if decoded else set())


@pytest.mark.usefixtures("same_noise")
def test_gradient_of_every_parameter_is_that_of_scvi_tools(case: Any) -> None:
    module, loss = stepped(case)
    assert_allclose(loss.numpy(), case.values["training_loss"].numpy(), rtol=1e-5)
    theirs = case.unpack("gradients", "trained")
    ours = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert ours.keys() == theirs.keys()
    shifts = shifts_taken_away(module)
    for name, gradient in theirs.items():
        # A bias that is taken away is measured by the weights of its layer.
        measure = theirs[name.replace(".bias", ".weight") if name in shifts else name]
        largest = measure.abs().max().item()
        assert largest > 0, name
        atol = 1e-4 * largest
        assert_allclose(ours[name].numpy(), gradient.numpy(), rtol=0, atol=atol, err_msg=name)


@pytest.mark.usefixtures("same_noise")
def test_running_statistics_after_a_step_are_those_of_scvi_tools(case: Any) -> None:
    module, _ = stepped(case)
    ours, theirs = dict(module.named_buffers()), case.unpack("running", "running")
    idle = case.without_effect()
    for name in theirs.keys() - idle:
        assert_allclose(ours[name].numpy(), theirs[name].numpy(), rtol=1e-6, atol=1e-6)
        assert not torch.equal(ours[name], case.weights()[name])
    counters = [value for name, value in ours.items() if name.endswith("num_batches_tracked")]
    assert all(counter == 1 for counter in counters)
    assert 2 * len(counters) == len(theirs.keys() - idle)

"""Twenty adversarial steps, beside those of scvi-tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.distributions import Normal

from cellvae.model.components.count_batch import CountBatch
from cellvae.model.scvi import SCVIConfig, SCVIModule, SCVISizes
from cellvae.train.loop.steps.adversarial_step import AdversarialStep
from cellvae.train.options.optimizer_options import OptimizerOptions


class Losses:
    """Hooks that note the loss of every step."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def before_backward(self, loss: Any) -> None:
        self.values.append(loss.loss.detach())

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        pass


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    with np.load(Path(__file__).parent / "adversarial.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def give(theirs: dict[str, Tensor], part: str, network: nn.Module) -> None:
    """Load weights of theirs by name; sub-networks that we do not make are left out."""
    own = {name: theirs[f"before/{part}/{name}"] for name in network.state_dict()}
    network.load_state_dict(own)


@pytest.fixture
def run(
    theirs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> tuple[SCVIModule, AdversarialStep, dict[str, np.ndarray]]:
    """Network and step after twenty steps from their weights, and the losses of each."""
    n_genes, n_batch = theirs["counts"].shape[1], int(theirs["batch"].max()) + 1
    config = SCVIConfig(n_hidden=16, n_latent=theirs["noise"].shape[-1], dropout_rate=0.0)
    module = SCVIModule(SCVISizes(n_genes=n_genes, n_batch=n_batch), config).train()
    give(theirs, "module", module)
    step = AdversarialStep(module)
    give(theirs, "classifier", step.classifier)
    for part in step.classifier.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    optimizer, own = step.make_optimizers(module, OptimizerOptions())
    for option in ("lr", "eps", "weight_decay"):
        assert [each.defaults[option] for each in (optimizer, own)] == theirs[option].tolist()
    noise = iter(theirs["noise"])
    monkeypatch.setattr(Normal, "rsample", lambda self: self.loc + self.scale * next(noise))
    hooks, n_steps = Losses(), len(theirs["cells"])
    fooling, guessing = [], []
    for i, cells in enumerate(theirs["cells"]):
        kl_weight = i / n_steps
        step.begin_epoch(only_finite=True)
        step.set_kl_weight(kl_weight)
        codes = theirs["batch"][cells]
        batch = CountBatch(theirs["counts"][cells], codes, torch.zeros_like(codes))
        step.update(batch, torch.tensor(kl_weight), optimizer, hooks)
        metrics = step.metrics()
        fooling.append(metrics["adversarial_loss_train"])
        guessing.append(metrics["adversarial_classifier_loss_train"])
    losses = {"losses": hooks.values, "fooling": fooling, "guessing": guessing}
    return module, step, {name: torch.stack(v).numpy() for name, v in losses.items()}


def test_losses_of_all_steps_are_those_of_scvi_tools(theirs: dict[str, Tensor], run: Any) -> None:
    for name, values in run[2].items():
        assert_allclose(values, theirs[name].numpy(), rtol=1e-3, err_msg=name)


def test_weights_after_the_last_step_are_those_of_scvi_tools(
    theirs: dict[str, Tensor], run: Any
) -> None:
    for part, network in (("module", run[0]), ("classifier", run[1].classifier)):
        moved = 0
        for name, value in network.named_parameters():
            # Before a normalisation of the batch, what moves a bias is rounding.
            atol = 1e-3 if name.endswith("0.bias") and "fc_layers" in name else 1e-5
            after = theirs[f"after/{part}/{name}"]
            assert_allclose(value.detach().numpy(), after.numpy(), 1e-3, atol, err_msg=name)
            moved += not torch.equal(after, theirs[f"before/{part}/{name}"])
        assert moved > 5

"""Write `adversarial.npz`: twenty steps of scvi-tools' AdversarialTrainingPlan.

Run with scvi-tools 1.4.2, outside of the tests::

    python tests/parity/write_adversarial.py

A small SCVI without dropout and its classifier, with given cells and noise: losses of every step,
and the weights before and after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scvi
import torch
from scvi.module import VAE
from scvi.train import AdversarialTrainingPlan
from torch import Tensor, nn
from torch.distributions import Normal

FILE = Path(__file__).parent / "adversarial.npz"
N_CELLS, N_GENES, N_BATCH, N_LATENT, N_HIDDEN = 60, 20, 3, 4, 16
N_STEPS, CELLS_PER_STEP = 20, 12


class Plan(AdversarialTrainingPlan):
    """Their plan without a trainer, whose KL weight and step are given."""

    step = 0
    made: Any = None

    @property
    def kl_weight(self) -> float:
        return self.step / N_STEPS

    def optimizers(self) -> Any:
        return self.made

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward()

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        if name == "train_loss":
            self.total = value.detach().clone()

    def compute_and_log_metrics(self, *args: Any) -> None:
        pass

    def loss_adversarial_classifier(self, *args: Any) -> Tensor:
        loss = super().loss_adversarial_classifier(*args)
        self.adversarial.append(loss.detach().clone())
        return loss


def without_dropout(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


def states(prefix: str, module: nn.Module, classifier: nn.Module) -> dict[str, np.ndarray]:
    return {
        f"{prefix}/{part}/{name}": value.numpy().copy()
        for part, network in (("module", module), ("classifier", classifier))
        for name, value in network.state_dict().items()
    }


def main() -> None:
    if scvi.__version__ != "1.4.2":
        raise SystemExit(f"Expected scvi-tools 1.4.2; got {scvi.__version__}.")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    batch = rng.integers(N_BATCH, size=(N_CELLS, 1))
    counts = rng.poisson(rng.gamma(2.0, 2.0, (N_BATCH, N_GENES))[batch[:, 0]]).astype(np.float32)
    cells = np.stack([rng.permutation(N_CELLS)[:CELLS_PER_STEP] for _ in range(N_STEPS)])
    noise = rng.standard_normal((N_STEPS, CELLS_PER_STEP, N_LATENT), dtype=np.float32)
    module = VAE(N_GENES, n_batch=N_BATCH, n_hidden=N_HIDDEN, n_latent=N_LATENT, dropout_rate=0.0)
    plan = Plan(module, adversarial_classifier=True)
    without_dropout(plan.adversarial_classifier)
    values = states("before", module, plan.adversarial_classifier)
    plan.made = plan.configure_optimizers()
    plan.train()
    draws = iter(torch.from_numpy(noise))
    Normal.rsample = lambda self: self.loc + self.scale * next(draws)
    losses, fooling, guessing = [], [], []
    for step in range(N_STEPS):
        plan.step, plan.adversarial = step, []
        tensors = {
            scvi.REGISTRY_KEYS.X_KEY: torch.from_numpy(counts[cells[step]]),
            scvi.REGISTRY_KEYS.BATCH_KEY: torch.from_numpy(batch[cells[step]]),
            scvi.REGISTRY_KEYS.LABELS_KEY: torch.zeros(CELLS_PER_STEP, 1, dtype=torch.int64),
        }
        plan.training_step(tensors, step)
        losses.append(plan.total)
        fooling.append(plan.adversarial[0])
        guessing.append(plan.adversarial[1])
    values |= states("after", module, plan.adversarial_classifier)
    np.savez_compressed(
        FILE,
        counts=counts,
        batch=batch,
        cells=cells,
        noise=noise,
        losses=torch.stack(losses).numpy(),
        fooling=torch.stack(fooling).numpy(),
        guessing=torch.stack(guessing).numpy(),
        lr=np.array([each.defaults["lr"] for each in plan.made]),
        eps=np.array([each.defaults["eps"] for each in plan.made]),
        weight_decay=np.array([each.defaults["weight_decay"] for each in plan.made]),
        **values,
    )


if __name__ == "__main__":
    main()

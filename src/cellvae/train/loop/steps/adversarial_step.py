"""Adversarial step: a classifier guesses the batch of a cell, and the latent learns to fool it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cellvae.contracts import Loss, Module
from cellvae.core.platform.device_kind import is_cuda
from cellvae.core.platform.torch_adapter import is_not_finite, norms
from cellvae.core.seeds import isolated_rng
from cellvae.errors import TrainingError
from cellvae.nn import Classifier
from cellvae.train.loop.optimizers import Adam
from cellvae.train.loop.steps.buffer_copy import BufferCopy
from cellvae.train.loop.steps.gradient_step import Average, GradientStep, LossFunction
from cellvae.train.options.optimizer_options import OptimizerOptions

# As in scvi-tools.
N_LAYERS, N_HIDDEN = 2, 32
DROPOUT_RATE = 0.1
LEARNING_RATE, EPS = 1e-3, 0.01

FOOLING_LOSS, CLASSIFIER_LOSS = "adversarial_loss_train", "adversarial_classifier_loss_train"


@final
class AdversarialStep(GradientStep):
    """Step in which the latent variables learn to fool a classifier, which then learns from them.

    The loss of the module gets a further term: the cross-entropy of what the classifier predicts
    from `Loss.latent`, against equal probabilities of all classes but the true one. After the
    optimizer of the module has made its step, the classifier makes one of its own, towards the true
    classes, on the same latent variables without their gradient. Both losses are multiplied by
    `scale`; nothing happens while that is 0.

    Classifier and numbers are those of scvi-tools' `AdversarialTrainingPlan`: two hidden layers
    of 32, Adam with a rate of 1e-3. It computes in the precision of the weights, without
    autocasting. Where gradients of several batches are accumulated, the classifier makes one step
    for all of them too.

    Parameters
    ----------
    module
        The network; its `n_adversarial_classes` are at least 2.
    loss
        `module.loss`, compiled or not.
    scale
        Weight of both losses; `"auto"` for 1 minus the KL weight.
    seed
        Seed of the initial weights of the classifier.

    References
    ----------
    Gayoso et al. (2021): Joint probabilistic modeling of single-cell multi-omic data with totalVI.
    Nature Methods 18, 272-282. Ganin et al. (2016): Domain-adversarial training of neural networks.
    Journal of Machine Learning Research 17.
    """

    metric_names: tuple[str, ...] = (FOOLING_LOSS, CLASSIFIER_LOSS)

    def __init__(
        self,
        module: Module[Any],
        loss: LossFunction | None = None,
        *,
        scale: float | Literal["auto"] = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(module, loss)
        self.scale = scale
        with isolated_rng(seed, "adversarial classifier"):
            self.classifier = Classifier(
                module.n_latent,
                module.n_adversarial_classes,
                n_layers=N_LAYERS,
                n_hidden=N_HIDDEN,
                dropout_rate=DROPOUT_RATE,
            ).train()
        self.pending: list[Tensor] = []
        self.bad: Tensor | None = None
        self.sums: Float[Tensor, " parts"]
        self.only_finite = False
        self.is_on = self.was_on = True
        self.place(torch.device("cpu"), torch.get_default_dtype())

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the classifier to a device and a type of numbers."""
        self.classifier.to(device, dtype)
        self.parameters = list(self.classifier.parameters())
        self.buffers = BufferCopy(list(self.classifier.buffers()))
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def make_optimizers(
        self, module: Module[Any], options: OptimizerOptions
    ) -> list[torch.optim.Optimizer]:
        """Make the optimizer of the module, and that of the classifier."""
        weight = next(module.parameters())
        self.place(weight.device, weight.dtype)
        fused = True if weight.device.type in ("cpu", "cuda") else None
        own = Adam(
            self.parameters,
            lr=LEARNING_RATE,
            eps=EPS,
            weight_decay=options.weight_decay,
            fused=fused,
        )
        self.own_optimizers = (own,)
        return [*super().make_optimizers(module, options), own]

    def weight_of_losses(self, kl_weight: Tensor | float) -> Tensor | float:
        """Factor of both losses at a KL weight."""
        return 1.0 - kl_weight if self.scale == "auto" else self.scale

    def set_kl_weight(self, weight: float) -> None:
        """Note whether the losses count at this KL weight."""
        self.is_on = float(self.weight_of_losses(weight)) > 0
        self.was_on = self.was_on or self.is_on

    def changed_tensors(self) -> list[Tensor]:
        """Buffers of the classifier, their values before the step, and sums of its losses."""
        return [*self.classifier.buffers(), *self.buffers.saved, self.sums]

    def loss(self, batch: Any, kl_weight: Float[Tensor, ""]) -> Loss:
        """Loss of the module, and the weighted loss of fooling the classifier."""
        loss = super().loss(batch, kl_weight)
        self.bad = None
        if not self.is_on:
            return loss
        if loss.latent is None:
            raise TrainingError(
                f"Expected {type(self.module).__name__} to return Loss(latent=...), which an "
                "adversarial classifier reads; got None."
            )
        weight = self.weight_of_losses(kl_weight)
        targets = self.module.adversarial_targets(batch)
        self.buffers.save()
        fooling = self.cross_entropy(loss.latent, targets, fool=True)
        guessing = self.cross_entropy(loss.latent.detach(), targets, fool=False)
        self.pending.append(guessing * weight)
        self.add_to_metrics(fooling, guessing, len(targets))
        return loss._replace(loss=loss.loss + fooling * weight)

    def cross_entropy(
        self, z: Float[Tensor, "cells latent"], targets: Int[Tensor, " cells"], *, fool: bool
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the predicted classes; nats per cell.

        Parameters
        ----------
        z
            Latent variables.
        targets
            True class of each cell.
        fool
            Whether it is against equal probabilities of all classes but the true one, with a
            gradient for `z` alone; otherwise it is against the true class.
        """
        for parameter in self.parameters:
            parameter.requires_grad_(not fool)
        with torch.autocast(z.device.type, enabled=False):
            log_probs = self.classifier.log_probabilities(z.to(self.parameters[0].dtype))
        of_true = log_probs.gather(1, targets.unsqueeze(-1)).squeeze(-1)
        if not fool:
            return -of_true.mean()
        n_others = self.module.n_adversarial_classes - 1
        return (of_true - log_probs.sum(dim=-1)).mean() / n_others

    def leave_out(self, bad: Tensor) -> None:
        """Change nothing in :meth:`finish` if `bad` is true."""
        self.bad = bad

    def finish(self, average: Average | None = None) -> None:
        """Make the step of the classifier, unless a loss or gradient was not finite."""
        if not self.pending:
            return
        loss = self.pending[0] if len(self.pending) == 1 else torch.stack(self.pending).mean()
        self.pending = []
        gradients = torch.autograd.grad(loss, self.parameters)
        bad = is_not_finite(norms(gradients)).any()
        if self.bad is not None:
            bad = bad | self.bad
        if average is not None:
            # The same in all processes, which would else have different classifiers.
            flat = torch.cat([*(g.reshape(-1) for g in gradients), bad.reshape(1).to(loss)])
            parts = average(flat).split([*(p.numel() for p in self.parameters), 1])
            bad = parts[-1].squeeze() > 0
            gradients = tuple(
                part.view_as(p) for part, p in zip(parts, self.parameters, strict=False)
            )
        (optimizer,) = self.own_optimizers
        if is_cuda(bad.device):
            # A flag of the fused kernel, so that nothing is read from the device.
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            self.buffers.restore(bad)
        elif bool(bad):
            self.buffers.restore()
            return
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def begin_epoch(self, *, only_finite: bool) -> None:
        """Set the metrics to zero, in place, since a CUDA graph adds to the same tensor."""
        self.only_finite = only_finite
        self.was_on = False
        self.pending = []
        self.sums.zero_()

    def add_to_metrics(self, fooling: Tensor, guessing: Tensor, n_cells: int) -> None:
        """Add both losses of a batch, on its device."""
        losses = torch.stack([fooling.detach(), guessing.detach(), torch.ones_like(fooling)])
        parts = losses.detach().double() * n_cells
        if self.only_finite:
            parts = parts.masked_fill(is_not_finite(parts).any(), 0.0)
        self.sums.add_(parts)

    def metrics(self, add_up: Average | None = None) -> dict[str, Float[Tensor, ""]]:
        """Both losses without their weight, in nats per cell; none in an epoch without them."""
        if not self.was_on:
            return {}
        sums = self.sums if add_up is None else add_up(self.sums.clone())
        return {FOOLING_LOSS: sums[0] / sums[2], CLASSIFIER_LOSS: sums[1] / sums[2]}

    def state_dict(self) -> dict[str, Any]:
        """Classifier and its optimizer, copied."""
        (optimizer,) = self.own_optimizers
        return copy.deepcopy(
            {"classifier": dict(self.classifier.state_dict()), "optimizer": optimizer.state_dict()}
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore classifier and optimizer."""
        (optimizer,) = self.own_optimizers
        self.classifier.load_state_dict(state["classifier"])
        optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))

    def can_load(self, state: Mapping[str, Any]) -> bool:
        """Whether a state has a classifier of as many latent dimensions and classes."""
        weights = state.get("classifier", {})
        shapes = {name: value.shape for name, value in self.classifier.state_dict().items()}
        return {name: value.shape for name, value in weights.items()} == shapes

"""Options of the optimizer, its plateau scheduler and the warm-up of the KL weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from cellvae.core.options import Options, option
from cellvae.errors import InvalidOptionError

OptimizerCreator = Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Options):
    """The optimizer and its arguments.

    Parameters
    ----------
    optimizer
        Optimizer.
    optimizer_creator
        Function from parameters to an optimizer of torch, for `optimizer="Custom"`.
    lr
        Learning rate.
    weight_decay
        Weight decay of the optimizer.
    eps
        Term added to the denominator of the optimizer.
    update_only_decoder
        Whether only the decoder is trained.
    fused_optimizer
        Whether one fused kernel updates all weights, where the device has one.
    """

    optimizer: Literal["Adam", "AdamW", "Custom"] = "Adam"
    optimizer_creator: OptimizerCreator | None = None
    lr: float = option(1e-3, at_least=0)
    weight_decay: float = option(1e-6, at_least=0)
    eps: float = option(0.01, at_least=0)
    update_only_decoder: bool = False
    fused_optimizer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.optimizer == "Custom") != (self.optimizer_creator is not None):
            raise InvalidOptionError(
                "Expected optimizer='Custom' together with optimizer_creator=<function of the "
                f"parameters>; got optimizer={self.optimizer!r} and "
                f"optimizer_creator={self.optimizer_creator!r}."
            )


@dataclass(frozen=True, kw_only=True)
class PlateauOptions(Options):
    """Plateau scheduler: lowers the learning rate when a metric stops improving.

    Parameters
    ----------
    factor
        Factor by which the learning rate is multiplied when it is lowered.
    patience
        Epochs without improvement before the learning rate is lowered.
    threshold
        Least improvement that counts.
    metric
        Metric that lowers the learning rate when it no longer improves.
    minimum
        Least learning rate.
    """

    factor: float = option(0.6, above=0, at_most=1)
    patience: int = option(30, at_least=0)
    threshold: float = option(0.0, at_least=0)
    metric: str = "elbo_validation"
    minimum: float = option(0.0, at_least=0)


@dataclass(frozen=True, kw_only=True)
class WarmupOptions(Options):
    """How the weight of the KL term grows: by epochs, or by steps where epochs is None.

    `n_epochs="auto"` takes half of the run and at most 400 epochs, so that the weight reaches its
    maximum within the run.

    Parameters
    ----------
    n_epochs
        Epochs over which the KL weight grows; `"auto"` for half of the run, at most 400 epochs.
    n_steps
        Optimizer steps over which the KL weight grows, where epochs are not given.
    minimum
        KL weight at the start.
    maximum
        KL weight at the end of the warm-up.
    """

    n_epochs: int | Literal["auto"] | None = option("auto", at_least=0)
    n_steps: int | None = option(None, at_least=0)
    minimum: float = option(0.0, at_least=0)
    maximum: float = option(1.0, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minimum > self.maximum:
            raise InvalidOptionError(
                f"Expected min_kl_weight to be at most max_kl_weight; "
                f"got {self.minimum:g} and {self.maximum:g}."
            )

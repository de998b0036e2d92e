"""A run in stages: learning rate, frozen parts and KL weight change at given epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import lightning.pytorch as pl

from cellvae.core.log import logger, warn
from cellvae.core.options import Options, check_arguments, option
from cellvae.errors import InvalidOptionError, TrainingError, TrainingWarning
from cellvae.train.callbacks.freeze import Choice, FrozenParts, check_trainable_left, network_of
from cellvae.train.callbacks.protocols import Group
from cellvae.train.callbacks.scheduling.optimizer_settings import (
    ParamGroupSettings,
    set_learning_rate,
)
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.kl_warmup import KLWarmup


@dataclass(frozen=True, kw_only=True)
class Stage(Options):
    """One stage of a run.

    Parameters
    ----------
    epochs
        Epochs that it lasts; the last stage lasts until the run ends, so it may leave this out.
    freeze
        Parts of the network that are not trained in this stage, as `Freeze` takes them.
    lr
        Learning rate of the stage; None for that of the stage before.
    lr_factor
        What the learning rate of the stage before is multiplied by.
    kl_weight
        Weight of the KL term in this stage; None for that of the warm-up.

    Raises
    ------
    InvalidOptionError
        If a value is out of its range, or both `lr` and `lr_factor` are given.
    """

    epochs: int | None = option(None, at_least=1)
    freeze: Any = None
    lr: float | None = option(None, at_least=0)
    lr_factor: float | None = option(None, above=0)
    kl_weight: float | None = option(None, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr is not None and self.lr_factor is not None:
            raise InvalidOptionError(
                f"Expected lr or lr_factor of a stage; got lr={self.lr:g} and "
                f"lr_factor={self.lr_factor:g}. Leave one out."
            )


class Stages(pl.Callback):
    """Goes through stages of a run, one after the other.

    At the end of the run flags, learning rates and the growth of the KL weight are as they were
    before. A schedule that sets the learning rate every epoch goes before `lr` and `lr_factor`.

    Parameters
    ----------
    stages
        The stages in their order.
    verbose
        Whether the start of each stage is logged.

    Raises
    ------
    InvalidOptionError
        If there are no stages, or one that is not the last does not say how long it is.

    Examples
    --------
    >>> from cellvae.train.callbacks.scheduling.stages import Stage, Stages
    >>> stages = Stages([Stage(epochs=10, freeze="decoder"), Stage(lr_factor=0.1)])
    >>> stages.stage_index(9), stages.stage_index(10)
    (0, 1)
    """

    group = Group.MUTATOR

    @check_arguments("stages")
    def __init__(self, stages: Sequence[Stage], verbose: bool = False) -> None:
        super().__init__()
        check_stages(stages)
        self.stages = list(stages)
        self.verbose = verbose
        lengths = [stage.epochs or 0 for stage in self.stages[:-1]]
        self.first_epochs = list(accumulate(lengths, initial=0))
        self.clear()

    def clear(self) -> None:
        """Reset the state of an earlier run."""
        self.number: int | None = None
        self.warmup: KLWarmup | None = None
        self.rates: list[ParamGroupSettings] = []
        self.frozen_parts: list[FrozenParts | None] = []

    def stage_index(self, epoch: int) -> int:
        """Number of the stage in an epoch of the run, both counted from 0."""
        return max(i for i, first in enumerate(self.first_epochs) if first <= epoch)

    def ends_at(self, n: int) -> bool:
        """Whether a stage but the last ends with the n-th epoch of the run, counted from 1.

        `SaveCheckpoint(monitor=None, epochs=stages.ends_at)` keeps the model at the end of each.
        """
        return n in self.first_epochs[1:]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Select the parts of all stages; a wrong name is an error before training."""
        self.clear()
        network = network_of(pl_module)
        choices: list[Choice | None] = [stage.freeze for stage in self.stages]
        self.frozen_parts = [
            None if choice is None else FrozenParts(network, choice) for choice in choices
        ]
        for parts in self.frozen_parts:
            if parts is not None:
                check_trainable_left(network, parts.parameters, "Stages")
        if isinstance(pl_module, TrainingPlan):
            self.warmup = pl_module.warmup
        elif any(stage.kl_weight is not None for stage in self.stages):
            raise TrainingError(
                "Expected a model of cellvae for stages with kl_weight; got "
                f"{type(pl_module).__name__}, whose KL weight is not known here. Leave it out."
            )
        most = trainer.max_epochs or -1
        if 0 < most <= self.first_epochs[-1]:
            warn(
                f"Stage {len(self.stages) - 1} would begin in epoch {self.first_epochs[-1]}, but "
                f"the run has {most} epochs. Give more with max_epochs, or shorter stages.",
                TrainingWarning,
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the stage of this epoch; a resumed stage does not set its learning rate again."""
        number = self.stage_index(trainer.current_epoch)
        stage = self.stages[number]
        if not self.rates:
            self.rates = [
                ParamGroupSettings.from_optimizer(optimizer) for optimizer in trainer.optimizers
            ]
        if number != self.number:
            self.set_learning_rates(trainer, stage)
            if self.verbose and trainer.is_global_zero:
                logger.info("Epoch %d: %s.", trainer.current_epoch, describe_stage(number, stage))
        self.number = number
        self.freeze_stage(number)
        if isinstance(pl_module, TrainingPlan) and self.warmup is not None:
            weight = stage.kl_weight
            pl_module.set_warmup(self.warmup if weight is None else constant_warmup(weight))

    def set_learning_rates(self, trainer: pl.Trainer, stage: Stage) -> None:
        """Give all optimizers the learning rate of a stage."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                if stage.lr is not None:
                    set_learning_rate(group, stage.lr)
                elif stage.lr_factor is not None:
                    set_learning_rate(group, float(group["lr"]) * stage.lr_factor)

    def freeze_stage(self, number: int | None) -> None:
        """Freeze the parts of one stage, and unfreeze those of all others."""
        for i, parts in enumerate(self.frozen_parts):
            if parts is not None and i != number:
                parts.unfreeze()
        if number is not None and (parts := self.frozen_parts[number]) is not None:
            parts.freeze()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Keep frozen layers in eval mode whatever happened since the last step."""
        if self.number is not None and (parts := self.frozen_parts[self.number]) is not None:
            parts.set_eval_mode()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put everything back."""
        self.restore(trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Put everything back."""
        self.restore(trainer, pl_module)

    def restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give flags, learning rates and the growth of the KL weight back what they were."""
        if self.number is None:
            return
        self.freeze_stage(None)
        if any(stage.lr is not None or stage.lr_factor is not None for stage in self.stages):
            for optimizer, rates in zip(trainer.optimizers, self.rates, strict=False):
                rates.restore(optimizer)
        if isinstance(pl_module, TrainingPlan) and self.warmup is not None:
            pl_module.set_warmup(self.warmup)

    def state_dict(self) -> dict[str, Any]:
        """Stage that the run is in, and what the run had before."""
        if self.number is None:
            return {}
        return {
            "number": self.number,
            "rates": [rates.values for rates in self.rates],
            "warmup": None if self.warmup is None else dataclasses.asdict(self.warmup),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in a stage."""
        self.number = state_dict["number"]
        self.rates = [ParamGroupSettings(values) for values in state_dict["rates"]]
        warmup = state_dict["warmup"]
        self.warmup = None if warmup is None else KLWarmup(**warmup)


def check_stages(stages: Sequence[Stage]) -> None:
    """Check that stages follow each other.

    Raises
    ------
    InvalidOptionError
        If there are none, or one that is not the last does not say how long it is.
    """
    if not isinstance(stages, Sequence):
        raise InvalidOptionError(f"Expected a list of stages, each a Stage; got {stages!r:.100}.")
    if not stages:
        raise InvalidOptionError("Expected at least one Stage; got none.")
    for i, stage in enumerate(stages):
        if not isinstance(stage, Stage):
            raise InvalidOptionError(
                f"Expected stages to be made by Stage(epochs=...); got {stage!r:.100}."
            )
        if stage.epochs is None and i + 1 < len(stages):
            raise InvalidOptionError(
                f"Expected Stage(epochs=...) of all stages but the last; stage {i} of "
                f"{len(stages)} does not say how long it is."
            )


def constant_warmup(weight: float) -> KLWarmup:
    """KL weight that is the same in all epochs."""
    return KLWarmup(n_epochs=None, n_steps=None, minimum=weight, maximum=weight)


def describe_stage(number: int, stage: Stage) -> str:
    """Words for what a stage changes."""
    parts = []
    if stage.lr is not None:
        parts.append(f"learning rate {stage.lr:g}")
    if stage.lr_factor is not None:
        parts.append(f"learning rate times {stage.lr_factor:g}")
    if stage.freeze is not None:
        name = stage.freeze if isinstance(stage.freeze, str) else "some parts"
        parts.append(f"{name} frozen")
    if stage.kl_weight is not None:
        parts.append(f"KL weight {stage.kl_weight:g}")
    return f"stage {number} begins" + (f" ({', '.join(parts)})" if parts else "")

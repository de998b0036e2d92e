"""An exponential moving average of the weights, used for validation and for the final model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.core.platform.torch_adapter import norms
from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.early_stopping.best_weights import tracked_module
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.weight_averaging import copy_weights_, lerp_


class EMA(pl.Callback):
    """Keeps an exponential moving average of the weights while the weights themselves are trained.

    From the last step of an epoch to the first of the next, the network holds the average: it is
    what validation, early stopping and checkpoints see, so that what is saved is what was measured.
    Training continues with the original weights, bit by bit. Metrics of training cells are
    those of the weights that are trained.

    Only parameters are averaged. Running means and variances of batch normalisation are means
    already, and stay the newest.

    Parameters
    ----------
    decay
        Part of the average that stays at each update; 0 keeps the newest weights.
    every
        Whether the average is updated at every `"step"` of the optimizer or once an `"epoch"`.
    start_epoch
        Epoch of the run, counted from 0, from which on weights are averaged. The first update takes
        the weights as they are; before it, the network is left alone.
    evaluate
        Whether the network holds the average between epochs.
    swap_on_end
        Whether it holds the average at the end of the run, unless another callback brings back the
        best; otherwise the weights that were trained. After an exception it holds the others if
        these are not finite.

    Attributes
    ----------
    n_updates
        Number of updates, counted at the end of a block of steps.

    Raises
    ------
    InvalidOptionError
        If an argument has a value that it cannot take.

    Examples
    --------
    >>> from cellvae.train.callbacks.ema import EMA
    >>> EMA(0.999, start_epoch=10).every
    'step'
    """

    group: Group = Group.MUTATOR
    supports_blocks: ClassVar[bool] = True
    supports_cuda_graphs: ClassVar[bool] = True

    @check_arguments()
    def __init__(
        self,
        decay: float = 0.99,
        every: Literal["step", "epoch"] = "step",
        start_epoch: int = 0,
        evaluate: bool = True,
        swap_on_end: bool = True,
    ) -> None:
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise InvalidOptionError(f"Expected decay to be at least 0 and below 1; got {decay}.")
        if every not in ("step", "epoch"):
            raise InvalidOptionError(f"Expected every to be 'step' or 'epoch'; got {every!r}.")
        if start_epoch < 0:
            raise InvalidOptionError(f"Expected start_epoch to be at least 0; got {start_epoch}.")
        self.decay = decay
        self.every = every
        self.start_epoch = start_epoch
        self.evaluate = evaluate
        self.swap_on_end = swap_on_end
        self.parameters: dict[str, Tensor] = {}
        self.clear()

    def clear(self) -> None:
        """Forget an earlier run."""
        self.average: dict[str, Tensor] = {}
        self.raw: dict[str, Tensor] = {}
        self.n_updates = 0
        self.last_step = 0
        self.last_epoch: int | None = None
        self.is_averaging = False

    @property
    def is_swapped(self) -> bool:
        """Whether the network holds the average now."""
        return bool(self.raw)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        if stage == "fit":
            self.clear()
            self.collect_parameters(pl_module)

    def collect_parameters(self, pl_module: pl.LightningModule) -> None:
        """Note which parameters are averaged."""
        named = tracked_module(pl_module).named_parameters()
        self.parameters = {name: p.detach() for name, p in named if p.is_floating_point()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring what a state held to where the parameters are now."""
        self.collect_parameters(pl_module)
        self.average = {k: v.to(self.parameters[k]) for k, v in self.average.items()}
        self.raw = {k: v.to(self.parameters[k]) for k, v in self.raw.items()}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring back the weights that are trained."""
        self.swap_out()
        self.is_averaging = trainer.current_epoch >= self.start_epoch

    def on_step_start(self, step: int) -> None:
        """Do nothing: the weights that are trained are back at the start of a block."""

    def on_step_end(self) -> None:
        """Update the average, within a block of steps; a CUDA graph replays this."""
        if self.averages_steps:
            self.update()

    @property
    def averages_steps(self) -> bool:
        """Whether a step of this epoch updates the average."""
        return self.every == "step" and self.is_averaging

    def capture_signature(self) -> tuple[bool, ...]:
        """Values that are fixed in a captured step: whether it updates the average."""
        return (self.averages_steps,)

    def changed_tensors(self) -> list[Tensor]:
        """Tensors that a step changes, beside the module."""
        return [*self.average.values()] if self.averages_steps else []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Bring back the weights that are trained, after validation within an epoch."""
        self.swap_out()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average, if the optimizer made a step."""
        if self.every == "epoch":
            if trainer.is_last_batch:
                self.update_for_epoch(trainer)
        elif trainer.global_step != self.last_step:
            n_steps, self.last_step = trainer.global_step - self.last_step, trainer.global_step
            if self.is_averaging:
                # In a block of several steps each has had its own update.
                if pl_module.automatic_optimization:
                    self.update()
                self.n_updates += n_steps

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the average to validation."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        if self.evaluate and fitting and not trainer.sanity_checking:
            self.swap_in()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the average to callbacks, where there was no validation."""
        if self.every == "epoch":
            self.update_for_epoch(trainer)
        if self.evaluate:
            self.swap_in()

    def update_for_epoch(self, trainer: pl.Trainer) -> None:
        """Update the average once in an epoch."""
        epoch = trainer.current_epoch
        if epoch >= self.start_epoch and self.last_epoch != epoch:
            self.last_epoch = epoch
            self.update()
            self.n_updates += 1

    def update(self) -> None:
        """Move the average towards the weights that are trained."""
        weights = self.raw or self.parameters
        if self.average:
            lerp_([*self.average.values()], [*weights.values()], 1.0 - self.decay)
            if self.is_swapped:
                copy_weights_([*self.parameters.values()], [*self.average.values()])
        else:
            self.average = {name: value.clone() for name, value in weights.items()}

    def swap_in(self) -> None:
        """Put the average into the network, if there is one and it is not there."""
        if self.average and not self.is_swapped:
            self.raw = {name: value.clone() for name, value in self.parameters.items()}
            copy_weights_([*self.parameters.values()], [*self.average.values()])

    def swap_out(self) -> None:
        """Put the weights that are trained back into the network, if they are not there."""
        if self.is_swapped:
            copy_weights_([*self.parameters.values()], [*self.raw.values()])
            self.raw = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the network, or the weights that were trained."""
        self.collect_parameters(pl_module)
        self.finish_with(average=self.swap_on_end)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave what is wanted in the network, or the other of the two if only that is finite."""
        if not self.average:
            return
        self.finish_with(average=self.swap_on_end)
        if not are_finite(self.parameters):
            other = self.raw if self.swap_on_end else self.average
            if are_finite(other):
                copy_weights_([*self.parameters.values()], [*other.values()])
        self.raw = {}

    def finish_with(self, *, average: bool) -> None:
        """Leave the average in the network, or the weights that were trained."""
        if average:
            self.swap_in()
        else:
            self.swap_out()

    def state_dict(self) -> dict[str, Any]:
        """Average, weights while they are swapped out, and counters."""
        return {
            "average": dict(self.average),
            "raw": dict(self.raw),
            "n_updates": self.n_updates,
            "last_step": self.last_step,
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the average of a state.

        Raises
        ------
        InvalidOptionError
            If it is one of another network.
        """
        average, raw = dict(state_dict["average"]), dict(state_dict["raw"])
        for name, value in (*average.items(), *raw.items()):
            if name not in self.parameters or value.shape != self.parameters[name].shape:
                raise InvalidOptionError(
                    f"Expected the moving average of this network; got one with '{name}' of shape "
                    f"{tuple(value.shape)}. Resume the run with the network that it had."
                )
        self.average = {name: value.detach().clone() for name, value in average.items()}
        self.raw = {name: value.detach().clone() for name, value in raw.items()}
        self.n_updates = int(state_dict["n_updates"])
        self.last_step, self.last_epoch = int(state_dict["last_step"]), state_dict["last_epoch"]


def are_finite(weights: dict[str, Tensor]) -> bool:
    """Whether all weights are finite; one read from the device."""
    values = [value for value in weights.values() if value.numel()]
    return bool(torch.isfinite(norms(values)).all())

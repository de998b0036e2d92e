"""Guard against losses and gradients that are not finite: they never reach the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from cellvae.core.log import logger
from cellvae.core.options import check_arguments
from cellvae.core.platform.device_kind import is_cpu
from cellvae.core.platform.torch_adapter import is_not_finite, norms
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.kernels import all_finite
from cellvae.train.callbacks.nan.device_counter import DeviceCounter, zero_out_step
from cellvae.train.callbacks.nan.nan_event import (
    NaNEvent,
    find_nan_cause,
    float_tensors,
    stop_run,
    weights_are_finite,
)
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.steps.buffer_copy import BufferCopy
from cellvae.train.loop.training_plan import TrainingPlan

OnNaN = Literal["stop_restore", "raise", "skip_batch", "ignore"]
NAN_ADVICE = "Check the counts for outliers, or lower the learning rate: plan_kwargs={'lr': ...}."


class NaNGuard(pl.Callback):
    """Skips every optimizer step whose loss or gradients are not finite.

    Part of every run of a model, by `train(on_nan=...)`. The loss is checked before the
    backward pass, the gradients before the optimizer step; BatchNorm statistics are restored. On a
    GPU nothing is read back before the epoch ends: the step is skipped on the device.

    Parameters
    ----------
    on_nan
        `"stop_restore"`: the run ends, and the best or else the last finite weights are restored.
        `"raise"`: the same, and a :class:`~cellvae.errors.TrainingError` is raised.
        `"skip_batch"`: the run continues; the report counts skipped steps.
        `"ignore"`: nothing is checked.
    max_skipped
        Fraction of the steps of an epoch that `"skip_batch"` may leave out before the run ends.

    Attributes
    ----------
    n_skipped
        Number of skipped steps.
    event
        The first of them, with its parameter or cells.

    Raises
    ------
    InvalidOptionError
        If `on_nan` or `max_skipped` is out of its range.
    """

    group: ClassVar[Group] = Group.GUARD
    supports_blocks: ClassVar[bool] = True
    supports_cuda_graphs: ClassVar[bool] = True

    @check_arguments()
    def __init__(self, on_nan: OnNaN = "stop_restore", *, max_skipped: float = 0.5) -> None:
        super().__init__()
        if not 0 < max_skipped <= 1:
            raise InvalidOptionError(
                f"Expected max_skipped to be above 0 and at most 1; got {max_skipped!r}."
            )
        self.on_nan: OnNaN = on_nan
        self.max_skipped = max_skipped
        self.clear()

    def clear(self) -> None:
        """Reset everything that belongs to an earlier run."""
        self.n_skipped = 0
        self.event: NaNEvent | None = None
        self.last_good: dict[str, Tensor] | None = None
        self.buffers = BufferCopy([])
        self.parameters: list[tuple[str, nn.Parameter]] = []
        self.counter: DeviceCounter | None = None
        self.clear_epoch()

    def clear_epoch(self) -> None:
        """Reset the counts of an epoch; tensors on the device stay in place."""
        self.n_skipped_before = self.n_skipped
        self.batch_idx = 0
        self.bad_loss: Tensor | None = None
        self.bad: Tensor | None = None
        self.is_restored = False
        if self.counter is not None:
            self.counter.start_epoch()

    def checks_every_step(self, device: torch.device) -> bool:
        """Whether results are read at every step, which would synchronise with a GPU."""
        return is_cpu(device)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reset everything that belongs to an earlier run."""
        self.clear()
        if isinstance(pl_module, TrainingPlan):
            pl_module.stop_at_nan(enabled=self.on_nan != "ignore")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the parameters and buffers that steps change."""
        named = pl_module.named_buffers()
        self.buffers = BufferCopy([b for name, b in named if name != "kl_weight"])
        device = pl_module.device
        if not self.checks_every_step(device):
            self.counter = DeviceCounter(device)
        names = {id(p): name.removeprefix("module.") for name, p in pl_module.named_parameters()}
        self.parameters = [
            (names.get(id(p), "?"), p)
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        ]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the counts of the epoch."""
        self.clear_epoch()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Copy the buffers before the step."""
        if pl_module.automatic_optimization:
            self.on_step_start(batch_idx)

    def on_step_start(self, step: int) -> None:
        """Copy the buffers before a step, given its index in the epoch."""
        if self.on_nan == "ignore":
            return
        self.batch_idx = step
        # Counted on the device, since the step may be the replay of a CUDA graph.
        if self.counter is not None:
            self.counter.step.add_(1)
        self.bad_loss = self.bad = None
        self.is_restored = False
        self.buffers.save()

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Check the loss."""
        if self.on_nan == "ignore":
            return
        if self.checks_every_step(loss.device):
            bad = torch.tensor(not math.isfinite(loss.item()))
        else:
            bad = is_not_finite(loss.detach()).reshape(())
        self.bad_loss = bad if self.bad_loss is None else self.bad_loss | bad
        self.bad = self.bad_loss

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Check the gradients, and skip the step if anything is not finite."""
        # In half precision the gradient scaler skips steps with infinite gradients itself.
        if self.on_nan == "ignore" or str(trainer.precision) == "16-mixed":
            return
        gradients = [grad for _, p in self.parameters if (grad := p.grad) is not None]
        if not gradients:
            return
        at_once = self.checks_every_step(gradients[0].device)
        if at_once and not bool(self.bad_loss) and all_finite(gradients):
            return
        with_grad = [(n, p) for n, p in self.parameters if p.grad is not None]
        bad_gradients = is_not_finite(norms(gradients))
        bad_loss = self.bad_loss if self.bad_loss is not None else bad_gradients.new_zeros(())
        flags = torch.cat([bad_loss.reshape(1), bad_gradients])
        self.bad = flags.any()
        if at_once:
            if bool(self.bad):
                leave_out_step(pl_module, self.bad)
                self.handle_skipped_step(
                    trainer, pl_module, [n for n, _ in with_grad], bad_gradients
                )
                for _, p in with_grad:
                    p.grad = None
            return
        assert self.counter is not None
        self.counter.add(self.bad, flags)
        if self.on_nan != "skip_batch":
            # The weights stay as they are for the rest of the epoch, after which the run ends.
            self.bad = self.counter.n_bad > 0
        zero_out_step(optimizer, with_grad, self.bad)
        leave_out_step(pl_module, self.bad)
        self.buffers.restore(self.bad)
        self.is_restored = True

    def changed_tensors(self) -> list[Tensor]:
        """Tensors that a step changes, beside the module."""
        return self.buffers.saved + (
            self.counter.changed_tensors() if self.counter is not None else []
        )

    def handle_skipped_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        names: Sequence[str],
        bad_gradients: Tensor,
    ) -> None:
        """Count a skipped step, and stop the run if `on_nan` says so."""
        self.buffers.restore()
        self.is_restored = True
        self.n_skipped += 1
        if self.event is None:
            wrong = [n for n, bad in zip(names, bad_gradients.tolist(), strict=True) if bad]
            assert isinstance(pl_module, TrainingPlan)
            self.event = find_nan_cause(
                pl_module,
                trainer.train_dataloader,
                self.batch_idx,
                from_loss=self.bad_loss is not None and bool(self.bad_loss),
                gradients=wrong,
            )
        self.react(trainer, pl_module, self.event)

    def react(self, trainer: pl.Trainer, pl_module: pl.LightningModule, event: NaNEvent) -> None:
        """Raise, stop the run, or log the first skipped step, depending on `on_nan`."""
        if self.on_nan == "raise":
            raise TrainingError(f"Training stopped: {event}. {NAN_ADVICE}")
        if self.on_nan == "skip_batch":
            if self.n_skipped == 1:
                logger.info("Left out a step: %s.", event)
            return
        stop_run(trainer, pl_module, event)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Restore the buffers after a skipped step."""
        if pl_module.automatic_optimization:
            self.on_step_end()

    def on_step_end(self) -> None:
        """Restore the buffers after a skipped step, where there were no gradients to check."""
        if self.bad is None or self.is_restored:
            return
        if not self.checks_every_step(self.bad.device):
            self.buffers.restore(self.bad)
        elif bool(self.bad):
            self.buffers.restore()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the counts from the device; copy the weights if they are finite."""
        if self.on_nan == "ignore" or not isinstance(pl_module, TrainingPlan):
            return
        n_bad, is_finite = self.read_epoch(pl_module.module)
        if self.counter is not None and n_bad:
            counter = self.counter
            self.n_skipped += n_bad
            if self.event is None:
                names = [n for n, p in self.parameters if p.requires_grad]
                self.event = find_nan_cause(
                    pl_module,
                    trainer.train_dataloader,
                    int(counter.first_step),
                    from_loss=bool(counter.first_loss),
                    gradients=counter.first_bad_names(names),
                )
            self.react(trainer, pl_module, self.event)
        steps = max(1, pl_module.n_steps_of_epoch)
        n_skipped = self.n_skipped - self.n_skipped_before
        if self.event is not None and n_skipped > self.max_skipped * steps:
            stop_run(trainer, pl_module, self.event)
        if is_finite:
            weights = pl_module.module.state_dict()
            self.last_good = {name: value.detach().clone() for name, value in weights.items()}
        elif self.event is None:
            self.event = find_nan_cause(pl_module, None, 0, from_loss=False, gradients=())
            self.react(trainer, pl_module, self.event)

    def read_epoch(self, module: nn.Module) -> tuple[int, bool]:
        """Steps counted on the device, and whether all weights are finite; one read."""
        if self.counter is None:
            return 0, weights_are_finite(module)
        floats = float_tensors(module)
        is_finite = torch.isfinite(norms(floats)).all() if floats else self.counter.n_bad >= 0
        n_bad, flag = torch.stack([self.counter.n_bad, is_finite.long()]).tolist()
        return n_bad, bool(flag)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the last finite weights if needed."""
        self.restore_finite_weights(pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Restore the last finite weights if the current ones are not finite."""
        if self.event is not None:
            self.buffers.restore()
        self.restore_finite_weights(pl_module)

    def restore_finite_weights(self, pl_module: pl.LightningModule) -> None:
        """Restore the last finite weights if the current ones are not finite."""
        if (
            isinstance(pl_module, TrainingPlan)
            and self.last_good is not None
            and not weights_are_finite(pl_module.module)
        ):
            pl_module.module.load_state_dict(self.last_good)

    def state_dict(self) -> dict[str, Any]:
        """Number of skipped steps."""
        return {"n_skipped": self.n_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting from a saved state."""
        self.n_skipped = int(state_dict["n_skipped"])


def leave_out_step(pl_module: pl.LightningModule, bad: Tensor) -> None:
    """Leave what a step trains beside the network as it is, if `bad` is true."""
    if isinstance(pl_module, TrainingPlan):
        pl_module.step.leave_out(bad)

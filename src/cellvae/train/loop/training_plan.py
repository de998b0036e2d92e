"""The LightningModule of a run: its hooks, and the metrics of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cellvae.contracts import Module, Rows, StepBlock
from cellvae.core.seeds import derive_seed, isolated_rng
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.split import Split
from cellvae.errors import TrainingError
from cellvae.train.loop.epoch_metrics import EpochMetricsModule
from cellvae.train.loop.loss_sums import LossSums
from cellvae.train.loop.model_files import ModelFiles
from cellvae.train.loop.optimizers import align_optimizer_state, make_plateau
from cellvae.train.loop.step_loop import StepLoop
from cellvae.train.loop.steps.gradient_step import LossFunction, Step
from cellvae.train.loop.steps.step_choice import make_step
from cellvae.train.loop.steps_per_block import StepsPerBlock
from cellvae.train.loop.trainer import stop_after_batch
from cellvae.train.options.adversarial_options import AdversarialOptions
from cellvae.train.options.kl_warmup import KLWarmup
from cellvae.train.options.metric_names import (
    warn_never_measured,
)
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
    PlateauOptions,
)
from cellvae.train.options.train_options import CompileOptions
from cellvae.train.records.history import History
from cellvae.train.records.run_state import RunState

STEP_KEY = "cellvae_step"
"""Entry of a checkpoint of Lightning with the state of what the step trains."""


class TrainingPlan(EpochMetricsModule):
    """Training of one module with any Lightning trainer: loss, optimizer, KL weight and metrics.

    Lightning's batches are :class:`~cellvae.contracts.StepBlock`: of one optimizer step, which
    Lightning makes, or of several, which :class:`StepLoop` makes. The random numbers of an epoch
    depend on the seed and the number of the epoch only; those of validation are the same in every
    epoch, so that the validation losses of two epochs differ by the weights alone.

    Parameters
    ----------
    module
        The network and its loss.
    seed
        Seed of the run.
    warmup
        KL weight by epoch or step.
    optimizer, plateau, adversarial, compiling
        Options of the optimizer, its learning rate schedule, an adversarial classifier and
        torch.compile.
    history
        Metrics of earlier runs, to which those of this run are added.
    log_steps
        Whether the logger gets loss and KL weight of every step.
    files
        Saves the model; None if it cannot be saved.
    rows, split
        All cells, and which of them are for training and validation; callbacks read them.
    first_epoch, first_step
        Epochs and optimizer steps of earlier runs; by default the epochs in the history.
    batch_size
        Cells per batch.
    run
        Facts of the run.
    resume_hook
        Called with the trainer at the start of the run, when the optimizers exist.

    Attributes
    ----------
    step_loop
        Makes the steps of a block.
    blocks
        Blocks of training and, if there are any, of validation cells.
    """

    def __init__(
        self,
        module: Module[Any],
        *,
        seed: int,
        warmup: KLWarmup,
        optimizer: OptimizerOptions | None = None,
        plateau: PlateauOptions | None = None,
        adversarial: AdversarialOptions | None = None,
        compiling: CompileOptions | None = None,
        history: History | None = None,
        log_steps: bool = False,
        files: ModelFiles | None = None,
        rows: Rows[Any] | None = None,
        split: Split | None = None,
        first_epoch: int | None = None,
        first_step: int = 0,
        batch_size: int = 128,
        run: RunState | None = None,
        resume_hook: Callable[[pl.Trainer], None] | None = None,
    ) -> None:
        n_train = None if split is None else len(split.train)
        super().__init__(
            module,
            run=run,
            history=history,
            warmup=warmup,
            first_epoch=first_epoch,
            first_step=first_step,
            n_train=n_train,
        )
        self.rows = rows
        self.split = split
        self.seed = seed
        self.optimizer_options = optimizer or OptimizerOptions()
        self.plateau_options = plateau
        self.batch_size = batch_size
        self.log_steps = log_steps
        self.files = files
        self.blocks: tuple[EpochBlocks[Any], ...] = ()
        self.resume_hook = resume_hook
        self.validation_noise = ExitStack()
        loss: LossFunction = module.loss
        if compiling is not None and compiling.enabled:
            loss = torch.compile(module.loss, **compiling.arguments)
        step = make_step(module, adversarial or AdversarialOptions(), seed=seed, loss=loss)
        self.step_loop = StepLoop(self, loss, step)

    @property
    def lr(self) -> float:
        """Initial learning rate, which Lightning's learning rate finder sets."""
        return self.optimizer_options.lr

    @lr.setter
    def lr(self, rate: float) -> None:
        self.optimizer_options = replace(self.optimizer_options, lr=float(rate))

    def configure_optimizers(self) -> Any:
        """Make the optimizers, and the learning rate schedule if one was requested.

        Lightning knows that of the module; the step makes use of its own.
        """
        optimizer = self.step.make_optimizers(self.module, self.optimizer_options)[0]
        if self.automatic_optimization:
            optimizer.register_step_post_hook(self.finish_step)
        if self.plateau_options is None:
            return optimizer
        schedule = make_plateau(optimizer, self.plateau_options)
        if not self.automatic_optimization:
            return [optimizer], [schedule]
        # Lightning requires a metric of every epoch; lr_scheduler_step reads the requested one.
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "train_loss"},
        }

    def finish_step(self, *_: Any) -> None:
        """Update what the step trains, after Lightning has made the step of the optimizer."""
        self.step.finish(self.average_over_processes if self.trainer.world_size > 1 else None)

    def average_over_processes(self, own: Tensor) -> Tensor:
        """Mean of a tensor over processes."""
        mean: Tensor = self.trainer.strategy.reduce(own, reduce_op="mean")
        return mean

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the learning rate schedule in epochs in which its metric was measured."""
        if self.plateau_options is None or not isinstance(scheduler, ReduceLROnPlateau):
            # For example the one of Lightning's weight averaging.
            super().lr_scheduler_step(scheduler, metric)
            return
        value = self.new_value(self.plateau_options.metric)
        if value is not None:
            scheduler.step(value)

    def on_train_end(self) -> None:
        """Warn if the metric of the learning rate schedule was never measured."""
        for config in self.trainer.lr_scheduler_configs:
            schedule = config.scheduler
            never = isinstance(schedule, ReduceLROnPlateau) and schedule.last_epoch == 0
            if never and self.plateau_options is not None:
                warn_never_measured(self.plateau_options.metric, self.trainer.callback_metrics)

    def transfer_batch_to_device(
        self, batch: StepBlock, device: torch.device, dataloader_idx: int
    ) -> StepBlock:
        """Return the block as it is; the loop moves its batches one by one."""
        return batch

    @property
    def step(self) -> Step:
        """What a training batch changes."""
        return self.step_loop.step

    @property
    def known_metrics(self) -> list[str]:
        """Names of all metrics that plan and step measure."""
        return [*super().known_metrics, *self.step.metric_names]

    def on_kl_weight(self, weight: float) -> None:
        """Tell the step of a new KL weight."""
        self.step.set_kl_weight(weight)

    def log_loss_sums(self, loss_sums: LossSums) -> None:
        """Log the means of an epoch; in training those of the step too."""
        super().log_loss_sums(loss_sums)
        if loss_sums is self.train_loss_sums:
            several = self.trainer.world_size > 1
            add_up = partial(self.trainer.strategy.reduce, reduce_op="sum") if several else None
            metrics = {k: v.float() for k, v in self.step.metrics(add_up).items()}
            self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1)

    @property
    def has_shares(self) -> bool:
        """Whether processes have different numbers of cells in a step."""
        return bool(self.blocks and self.blocks[0].shares)

    @property
    def n_steps_of_epoch(self) -> int:
        """Optimizer steps of this process in an epoch."""
        if self.blocks:
            return self.blocks[0].n_steps
        return int(self.trainer.num_training_batches)

    def set_steps_per_block(self, steps: StepsPerBlock) -> None:
        """Let Lightning make the steps if a block has one, and the loop otherwise."""
        self.step_loop.set_steps_per_block(steps)
        self.automatic_optimization = steps.number == 1

    def set_blocks(self, *blocks: EpochBlocks[Any] | None) -> None:
        """Set the blocks of training and validation cells; None for no validation."""
        self.blocks = tuple(each for each in blocks if each is not None)

    def request_stop(self, reason: str) -> None:
        """Stop the run after this batch, for a reason that its report will give."""
        self.run.note_stop(reason)
        stop_after_batch(self.trainer)

    def setup(self, stage: str) -> None:
        """Restrict the blocks to the cells of this process."""
        for blocks in self.blocks:
            blocks.shard(self.global_rank, self.trainer.world_size)
        if self.trainer.world_size > 1:
            # DDP has to look for parameters that a batch does not use, and torch warns where it
            # finds none: it always finds this one.
            self.never_used = torch.nn.Parameter(torch.zeros((), device=self.device))

    @property
    def rng_stream(self) -> tuple[int, ...]:
        """What seeds the random numbers of this process, beside seed and epoch."""
        return (self.global_rank,) if self.trainer.world_size > 1 else ()

    def on_fit_start(self) -> None:
        """Restore the optimizers of an earlier run."""
        if self.resume_hook is not None:
            self.resume_hook(self.trainer)
        for optimizer in self.trainer.optimizers:
            align_optimizer_state(optimizer)

    def on_train_start(self) -> None:
        """Begin the run, without the metrics of a search of learning rate or batch size."""
        self.history.truncate(self.epoch)
        self.run.begin(self.current_epoch)
        self.trainer.should_stop = self.trainer.should_stop or self.run.interrupted

    def on_train_epoch_start(self) -> None:
        """Start the epoch's own stream of random numbers and set its KL weight."""
        torch.manual_seed(derive_seed(self.seed, "epoch", self.epoch, *self.rng_stream))
        self.step_loop.begin_epoch()
        self.step.begin_epoch(only_finite=self.stops_at_nan)
        self.set_kl_weight()
        loader = self.trainer.train_dataloader
        if isinstance(loader, EpochBlocks):
            loader.set_epoch(self.epoch)
        # Lightning's weight averaging runs one more epoch to update the statistics of batch
        # normalisation; its flag is gone when this epoch ends.
        self.begin_epoch_metrics(
            is_extra=bool(getattr(self.trainer.fit_loop, "_skip_backward", False))
        )
        if self.has_extra_epoch:
            for parameter in self.parameters():
                parameter.grad = None

    def training_step(self, batch: StepBlock, batch_idx: int) -> Tensor | None:
        """Loss of one step, for Lightning to minimise; None after the steps of a block."""
        loss = None
        if self.automatic_optimization:
            self.update_kl_weight()
            share = self.blocks[0].shares[batch_idx] if self.has_shares else 1.0
            self.step.set_share(share)
            parts = self.step_loop.single_step_loss(batch, training=not self.has_extra_epoch)
            self.train_loss_sums.add(parts)
            if self.log_steps:
                self.log_step(parts)
            loss = parts.loss if share == 1.0 else parts.loss * share
        else:
            self.step_loop.run_block(batch)
        if self.trainer.is_last_batch:
            self.log_train_metrics()
        return loss

    def on_validation_epoch_start(self) -> None:
        """Seed the noise of validation, the same in every epoch."""
        self.validation_loss_sums.clear()
        self.validation_noise.enter_context(isolated_rng(self.seed, "validation", *self.rng_stream))

    def validation_step(self, batch: StepBlock, batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        self.validation_loss_sums.add(self.step_loop.single_step_loss(batch, training=False))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.validation_noise.close()
        self.log_validation_metrics()

    def on_train_epoch_end(self) -> None:
        """Read the metrics of the epoch from the device, all at once, into the history."""
        if self.has_extra_epoch or not self.train_loss_sums.n_cells:
            return  # no training: an extra epoch for statistics, or stopped before the first batch
        n_cells = self.train_loss_sums.n_cells
        if self.trainer.world_size > 1:
            count = torch.tensor(n_cells, device=self.device)
            n_cells = int(self.trainer.strategy.reduce(count, reduce_op="sum"))
        self.run.count_epoch(self.current_epoch + 1, n_cells)
        self.record_epoch_metrics()
        if self.trainer.world_size > 1:
            any_process = self.trainer.strategy.reduce_boolean_decision
            self.trainer.should_stop = any_process(self.trainer.should_stop, all=False)
        self.call_callbacks("on_epoch_complete")
        if (
            not self.automatic_optimization
            and self.step_loop.step_of_epoch == self.n_steps_of_epoch
        ):
            # Lightning moves schedules where it makes the steps.
            for config in self.trainer.lr_scheduler_configs:
                self.lr_scheduler_step(config.scheduler, None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the step trains to a checkpoint of Lightning."""
        if state := self.step.state_dict():
            checkpoint[STEP_KEY] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what the step trains from a checkpoint of Lightning."""
        if STEP_KEY in checkpoint:
            self.step.load_state_dict(checkpoint[STEP_KEY])

    def save_model(self, folder: Path, training: dict[str, Any] | None = None) -> None:
        """Save the model as it is now to a folder, from which it can be loaded.

        Raises
        ------
        TrainingError
            If the plan was made without `files`.
        """
        if self.files is None:
            raise TrainingError(
                "This plan does not know how its model is saved. Train through model.train(), "
                "or give TrainingPlan(files=...)."
            )
        self.files.save(folder, self.history, training or {})

    def call_callbacks(self, event: str, /, **payload: Any) -> None:
        """Call a hook of ours, `method(trainer, plan, **payload)`, on every callback that has it.

        Hooks of the package are `on_epoch_complete()`, after training and validation of an epoch,
        and `on_interrupt()` and `on_stop(reason)` at the end of a run. Callbacks may call hooks of
        their own invention.
        """
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            method = getattr(callback, event, None)
            if callable(method):
                method(self.trainer, self, **payload)

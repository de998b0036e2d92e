"""The LightningModule of a run: its hooks, and the metrics of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cellvae.contracts import Loss, Module, Rows, StepBlock
from cellvae.core.seeds import derive_seed, isolated_rng
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.split import Split
from cellvae.errors import TrainingError
from cellvae.train.loop.loss_sums import LossSums
from cellvae.train.loop.model_files import ModelFiles
from cellvae.train.loop.optimizers import align_optimizer_state, make_optimizer, make_plateau
from cellvae.train.loop.step_loop import StepLoop
from cellvae.train.loop.steps_per_block import StepsPerBlock
from cellvae.train.loop.trainer import stop_after_batch
from cellvae.train.options.kl_warmup import KLWarmup
from cellvae.train.options.metric_names import (
    canonical_name,
    is_validation,
    metric_names,
    warn_never_measured,
)
from cellvae.train.options.train_options import CompileOptions, OptimizerOptions, PlateauOptions
from cellvae.train.records.history import History
from cellvae.train.records.run_state import RunState


class TrainingPlan(pl.LightningModule):
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
    optimizer, plateau, compiling
        Options of the optimizer, its learning rate schedule and torch.compile.
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

    Attributes
    ----------
    step_loop
        Makes the steps of a block.
    blocks
        Blocks of training and, if there are any, of validation cells.
    resume_hook
        Called once at the start, when the optimizers exist.
    """

    def __init__(
        self,
        module: Module[Any],
        *,
        seed: int,
        warmup: KLWarmup,
        optimizer: OptimizerOptions | None = None,
        plateau: PlateauOptions | None = None,
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
    ) -> None:
        super().__init__()
        self.module = module
        self.rows = rows
        self.split = split
        self.seed = seed
        self.warmup = warmup
        self.optimizer_options = optimizer or OptimizerOptions()
        self.plateau_options = plateau
        self.history = History() if history is None else history
        self.first_epoch = self.history.next_epoch if first_epoch is None else first_epoch
        self.first_step = first_step
        self.batch_size = batch_size
        self.log_steps = log_steps
        self.files = files
        self.run = RunState() if run is None else run
        self.blocks: tuple[EpochBlocks[Any], ...] = ()
        self.resume_hook: Callable[[], None] | None = None
        self.stops_at_nan = False
        self.epoch_logged: dict[str, int] = {}
        self.validated = self.train_logged = self.has_extra_epoch = False
        # The global KL is divided by the number of training cells, in validation too.
        n_train = None if split is None else len(split.train)
        self.train_loss_sums = LossSums("train", module.metrics_from_sums, n_train)
        self.validation_loss_sums = LossSums("validation", module.metrics_from_sums, n_train)
        self.validation_noise = ExitStack()
        loss: Callable[[Any, Tensor], Loss] = module.loss
        if compiling is not None and compiling.enabled:
            loss = torch.compile(module.loss, **compiling.arguments)
        self.step_loop = StepLoop(self, loss)
        self.register_buffer(
            "kl_weight",
            torch.tensor(warmup.weight_at(self.first_epoch, first_step)),
            persistent=False,
        )
        self.kl_weight: Float[Tensor, ""]

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this name about forty times a step; torch's own __setattr__ is slow.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def epoch(self) -> int:
        """Number of the current epoch, counted over all runs of the model."""
        return self.first_epoch + self.current_epoch

    @property
    def lr(self) -> float:
        """Initial learning rate, which Lightning's learning rate finder sets."""
        return self.optimizer_options.lr

    @lr.setter
    def lr(self, rate: float) -> None:
        self.optimizer_options = replace(self.optimizer_options, lr=float(rate))

    @property
    def n_steps(self) -> int:
        """Optimizer steps made in this run."""
        return self.global_step

    @property
    def known_metrics(self) -> list[str]:
        """Names of all metrics that the plan measures."""
        extra = self.module.extra_metric_names
        return [*metric_names("train", extra), *metric_names("validation", extra), "kl_weight"]

    def configure_optimizers(self) -> Any:
        """Make the optimizer, and the learning rate schedule if one was requested."""
        optimizer = make_optimizer(self.module, self.optimizer_options)
        if self.plateau_options is None:
            return optimizer
        schedule = make_plateau(optimizer, self.plateau_options)
        # Lightning requires a metric of every epoch; lr_scheduler_step reads the requested one.
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "train_loss"},
        }

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

    def set_resume_hook(self, hook: Callable[[], None] | None) -> None:
        """Set what is called once at the start, when the optimizers exist."""
        self.resume_hook = hook

    def set_warmup(self, warmup: KLWarmup) -> None:
        """Set the KL weight by epoch or step from now on."""
        self.warmup = warmup

    def stop_at_nan(self, *, enabled: bool) -> None:
        """Whether a loss that is not finite stops the run and is left out of the metrics."""
        self.stops_at_nan = self.train_loss_sums.only_finite = enabled

    def request_stop(self, reason: str) -> None:
        """Stop the run after this batch, for a reason that its report will give."""
        self.run.note_stop(reason)
        stop_after_batch(self.trainer)

    def setup(self, stage: str) -> None:
        """Restrict the blocks to the cells of this process."""
        for blocks in self.blocks:
            blocks.shard(self.global_rank, self.trainer.world_size)

    @property
    def rng_stream(self) -> tuple[int, ...]:
        """What seeds the random numbers of this process, beside seed and epoch."""
        return (self.global_rank,) if self.trainer.world_size > 1 else ()

    def on_fit_start(self) -> None:
        """Restore the optimizers of an earlier run."""
        if self.resume_hook is not None:
            self.resume_hook()
        for optimizer in self.trainer.optimizers:
            align_optimizer_state(optimizer)

    def on_train_start(self) -> None:
        """Begin the run, without the metrics of a search of learning rate or batch size."""
        self.history.truncate(self.epoch)
        self.run.begin(self.current_epoch)
        self.trainer.should_stop = self.trainer.should_stop or self.run.interrupted

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Log a metric as Lightning does, and note the epoch of its value."""
        self.epoch_logged[name] = self.epoch
        super().log(name, value, *args, **kwargs)

    def is_fresh(self, name: str) -> bool:
        """Whether a metric was logged in the current epoch (its value may be of an earlier one)."""
        if self.has_extra_epoch:
            return False
        if name in self.epoch_logged:
            return self.epoch_logged[name] == self.epoch
        return self.validated or not is_validation(name)

    def new_value(self, name: str) -> float | None:
        """Value of a metric that was measured in this epoch, in any spelling; None otherwise."""
        metrics = self.trainer.callback_metrics
        name = canonical_name(name, metrics)
        return float(metrics[name]) if name in metrics and self.is_fresh(name) else None

    def on_train_epoch_start(self) -> None:
        """Start the epoch's own stream of random numbers and set its KL weight."""
        torch.manual_seed(derive_seed(self.seed, "epoch", self.epoch, *self.rng_stream))
        self.train_loss_sums.clear()
        self.step_loop.begin_epoch()
        self.validated = self.train_logged = False
        self.set_kl_weight()
        loader = self.trainer.train_dataloader
        if isinstance(loader, EpochBlocks):
            loader.set_epoch(self.epoch)
        # Lightning's weight averaging runs one more epoch to update the statistics of batch
        # normalisation; its flag is gone when this epoch ends.
        self.has_extra_epoch = bool(getattr(self.trainer.fit_loop, "_skip_backward", False))
        if self.has_extra_epoch:
            for parameter in self.parameters():
                parameter.grad = None

    def set_kl_weight(self) -> None:
        """Set the KL weight of this epoch and step, counted over all runs."""
        self.kl_weight.fill_(self.warmup.weight_at(self.epoch, self.first_step + self.global_step))

    def training_step(self, batch: StepBlock, batch_idx: int) -> Tensor | None:
        """Loss of one step, for Lightning to minimise; None after the steps of a block."""
        loss = None
        if self.automatic_optimization:
            self.update_kl_weight()
            parts = self.step_loop.single_step_loss(batch)
            self.train_loss_sums.add(parts)
            self.log_step(parts)
            loss = parts.loss
        else:
            self.step_loop.run_block(batch)
        if self.trainer.is_last_batch:
            self.train_logged = True
            self.log_loss_sums(self.train_loss_sums)
            self.log(
                "kl_weight", self.kl_weight.clone(), on_step=False, on_epoch=True, batch_size=1
            )
        return loss

    def update_kl_weight(self) -> None:
        """Set the KL weight of a step, if it changes from step to step."""
        if self.warmup.by_step:
            self.set_kl_weight()

    def log_step(self, loss: Loss) -> None:
        """Log the loss and KL weight of a step, if requested."""
        if self.log_steps:
            n = loss.reconstruction.shape[0]
            self.log(
                "train_loss_step",
                loss.loss.detach(),
                on_step=True,
                on_epoch=False,
                batch_size=n,
            )
            self.log("kl_weight_step", self.kl_weight, on_step=True, on_epoch=False, batch_size=n)

    def on_validation_epoch_start(self) -> None:
        """Seed the noise of validation, the same in every epoch."""
        self.validation_loss_sums.clear()
        self.validation_noise.enter_context(isolated_rng(self.seed, "validation", *self.rng_stream))

    def validation_step(self, batch: StepBlock, batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        self.validation_loss_sums.add(self.step_loop.single_step_loss(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.validation_noise.close()
        if self.validation_loss_sums.n_cells:
            self.log_loss_sums(self.validation_loss_sums)
            self.validated = not self.trainer.sanity_checking

    def log_loss_sums(self, loss_sums: LossSums) -> None:
        """Log the means of an epoch over all processes; they stay on the device."""
        if self.trainer.world_size > 1 and loss_sums.sums is not None:
            reduce = self.trainer.strategy.reduce
            loss_sums.sums = reduce(loss_sums.sums, reduce_op="sum")
            loss_sums.extra_sums = tuple(
                reduce(part, reduce_op="sum") for part in loss_sums.extra_sums
            )
        self.log_dict(
            {k: v.float() for k, v in loss_sums.means().items()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
        )

    def on_train_epoch_end(self) -> None:
        """Read the metrics of the epoch from the device, all at once, into the history."""
        if self.has_extra_epoch or not self.train_loss_sums.n_cells:
            return  # no training: an extra epoch for statistics, or stopped before the first batch
        n_cells = self.train_loss_sums.n_cells * self.trainer.world_size
        self.run.count_epoch(self.current_epoch + 1, n_cells)
        if not self.train_logged:
            # The epoch ended early (max_steps, a time limit): no batch was known as its last.
            self.log_loss_sums(self.train_loss_sums)
        metrics = self.trainer.callback_metrics
        names = [name for name in metrics if self.is_fresh(name)]
        read = dict(zip(names, read_metrics([metrics[n] for n in names]), strict=True))
        self.history.add(self.epoch, read)
        self.stop_if_loss_not_finite(read)
        if self.trainer.world_size > 1:
            stop = self.trainer.strategy.reduce_boolean_decision(
                self.trainer.should_stop, all=False
            )
            self.trainer.should_stop = stop
        self.call_callbacks("on_epoch_complete")

    def stop_if_loss_not_finite(self, metrics: Mapping[str, float]) -> None:
        """Stop the run if a loss of the epoch is not finite."""
        for what, name in (("training", "train_loss"), ("validation", "validation_loss")):
            if not math.isfinite(metrics.get(name, 0.0)) and self.stops_at_nan:
                self.run.note_nan(f"the {what} loss was {metrics[name]} in epoch {self.epoch}")
                self.trainer.should_stop = True

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


def read_metrics(values: list[Any]) -> list[float]:
    """Metrics as Python numbers, with one read per device."""
    tensors = [torch.as_tensor(value).detach().double().reshape(()) for value in values]
    numbers = [0.0] * len(tensors)
    for device in {tensor.device for tensor in tensors}:
        indices = [i for i, tensor in enumerate(tensors) if tensor.device == device]
        on_device = torch.stack([tensors[i] for i in indices]).tolist()
        for index, number in zip(indices, on_device, strict=True):
            numbers[index] = number
    return numbers

"""The one LightningModule: steps over blocks of cells, metrics read once an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cellvae.contracts import Loss, Module, Rows, StepBlock, to_device
from cellvae.core.seeds import derive_seed, isolated_rng
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.split import Split
from cellvae.data.setup.cell_values import CellValues
from cellvae.errors import TrainingError
from cellvae.train.loop.loss_sums import LossSums
from cellvae.train.loop.memory_format import align_optimizer_state
from cellvae.train.loop.optimizers import make_optimizer, make_plateau
from cellvae.train.loop.steps_per_block import CaptureDecision, StepsPerBlock
from cellvae.train.options.kl_warmup import KLWarmup
from cellvae.train.options.metric_names import (
    canonical_name,
    is_validation,
    metric_names,
    warn_never_measured,
)
from cellvae.train.options.train_options import CompileOptions, OptimizerOptions, PlateauOptions
from cellvae.train.records.history import History
from cellvae.train.records.training_report import TrainingReport

# Precisions of Lightning in which weights and cells are of another type than usual.
OTHER_TYPES = ("64-true", "16-true", "bf16-true")


class ModelFiles(Protocol):
    """How a model is written to and read from a folder; the model hands this to its run."""

    def save(self, folder: Path, history: History, training: dict[str, Any]) -> None:
        """Write the model as it is now, complete enough to be loaded by itself."""
        ...

    def weights(self, folder: Path) -> dict[str, Tensor]:
        """Read the weights of a saved model."""
        ...

    def write_state(self, path: Path, values: dict[str, Any]) -> None:
        """Write the state of a run that can go on."""
        ...

    def column(self, key: str, adata: Any = None) -> NDArray[Any]:
        """Read what `adata.obs[key]` says of each cell; of the model's own cells by default."""
        ...

    def names(self, cells: NDArray[np.int64]) -> list[str]:
        """Read the names of cells of the model."""
        ...

    def setup_key(self, name: str) -> str | None:
        """Read which column `setup_anndata` was given as `batch_key`, `labels_key` and so on."""
        ...

    def read(self, adata: Any) -> Rows[Any]:
        """Read other cells, their genes and categories matched by name."""
        ...


class StepRunner(Protocol):
    """What makes a step in another way than asking for all of it anew."""

    def run_step(
        self, rows: Rows[Any], cells: Tensor, optimizer: Any, watching: Sequence[Any]
    ) -> None:
        """Make one step."""
        ...

    @property
    def reason(self) -> str:
        """How the steps were made, for people."""
        ...


@dataclass(frozen=True, kw_only=True)
class BestEpoch:
    """The epoch that a callback found best."""

    monitor: str
    epoch: int
    score: float
    path: str | None = None
    restored: bool = False


class TrainingPlan(pl.LightningModule):
    """Training of one module: loss, optimizer, KL weight and metrics, for any Lightning trainer.

    Each Lightning batch is a :class:`~cellvae.contracts.Block` of one optimizer step, which
    Lightning makes, or of several, which the plan makes by itself. All random numbers of an epoch
    are a function of the seed and the number of the epoch; those of validation are the same in
    every epoch, so that two epochs compare weights and not draws.

    Parameters
    ----------
    module
        The mathematics of the model.
    seed
        Seed of the run.
    optimizer, plateau, warmup, compiling
        What was asked for.
    history
        Metrics of earlier runs, continued here.
    log_steps
        Whether loss and KL weight of every step go to the logger.
    files
        How the model is saved; None where it cannot be.
    rows, split
        All cells, and which of them are for training and validation; for callbacks that look at
        cells.
    first_epoch, first_step
        Epochs and optimizer steps of earlier runs; None for what the history says.
    batch_size
        Cells of a batch.
    run_id, identity, run_config
        Name of the run; what it is made of (which a run that goes on must agree with); and all its
        options, as plain values.
    cell_values
        Values of each column that the run reads, for its states.
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
        run_id: str = "",
        identity: Mapping[str, Any] | None = None,
        cell_values: Mapping[str, CellValues] | None = None,
        run_config: Mapping[str, Any] | None = None,
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
        self.best: dict[str, BestEpoch] = {}
        self.run_id = run_id
        self.identity = dict(identity or {})
        self.cell_values = dict(cell_values or {})
        self.run_config = dict(run_config or {})
        self.nan_event: str | None = None
        self.stop_reason: str | None = None
        self.status: str = "running"
        self.interrupted = False
        self.stop_at_nan = False
        self.started = self.has_extra_epoch = False
        self.blocks: tuple[EpochBlocks[Any], ...] = ()
        self.steps = StepsPerBlock(number=1, reason="")
        self.capture = CaptureDecision(wanted=False, reason="")
        self.placement: Literal["device", "memory"] = "memory"
        self.placement_reason = ""
        self.cuda_graph_step: StepRunner | None = None
        self.step_of_epoch = 0
        self.start_time = time.monotonic()
        self.earlier_seconds = self.data_loading_seconds = 0.0
        self.frozen_weights = False
        self.report: TrainingReport | None = None
        self.on_start: Callable[[], None] | None = None
        self.epoch_logged: dict[str, int] = {}
        self.n_cells_seen = self.n_cells_before = 0
        self.n_epochs_done = 0
        self.validated = self.train_logged = False
        # What all cells share is learned from the training cells; others bear as much of it.
        n_processes = None if split is None else len(split.train)
        self.train_loss_sums = LossSums("train", module.metrics_from_sums, n_processes)
        self.validation_loss_sums = LossSums("validation", module.metrics_from_sums, n_processes)
        self.validation_noise = ExitStack()
        self.loss: Callable[[Any, Tensor], Loss] = module.loss
        if compiling is not None and compiling.enabled:
            self.loss = torch.compile(module.loss, **compiling.arguments)
        self.register_buffer(
            "kl_weight",
            torch.tensor(warmup.weight_at(self.first_epoch, first_step)),
            persistent=False,
        )
        self.kl_weight: Float[Tensor, ""]

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes at every hook which one it calls, forty times a step; a module would look
        # through all its parts for a name that is none of them.
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
        """Learning rate that the optimizer begins with, for Lightning's search of it."""
        return self.optimizer_options.lr

    @lr.setter
    def lr(self, rate: float) -> None:
        self.optimizer_options = replace(self.optimizer_options, lr=float(rate))

    @property
    def n_steps(self) -> int:
        """Optimizer steps made in this run."""
        return self.global_step

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, before an interruption too."""
        return self.earlier_seconds + time.monotonic() - self.start_time

    @property
    def known_metrics(self) -> list[str]:
        """Names of all metrics that the plan measures."""
        extra = self.module.extra_metric_names
        return [*metric_names("train", extra), *metric_names("validation", extra), "kl_weight"]

    def configure_optimizers(self) -> Any:
        """Optimizer, and the schedule where one was asked for."""
        optimizer = make_optimizer(self.module, self.optimizer_options)
        if self.plateau_options is None:
            return optimizer
        schedule = make_plateau(optimizer, self.plateau_options)
        # Lightning wants a metric of every epoch; lr_scheduler_step reads the one asked for.
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "train_loss"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the learning rate schedule in epochs in which its metric was measured."""
        if self.plateau_options is None or not isinstance(scheduler, ReduceLROnPlateau):
            # Such as that of Lightning's weight averaging.
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
        """Leave the block where its rows are; what is taken from it is moved."""
        return batch

    @property
    def n_steps_of_epoch(self) -> int:
        """Optimizer steps of an epoch of this process."""
        if self.blocks:
            return self.blocks[0].n_steps
        return int(self.trainer.num_training_batches)

    def set_steps_per_block(self, steps: StepsPerBlock) -> None:
        """Make steps by itself where a block has several; Lightning makes single ones."""
        self.steps = steps
        self.automatic_optimization = steps.number == 1

    def single_step_loss(self, block: StepBlock) -> Loss:
        """Loss of the one step of a block."""
        if block.steps.shape[0] != 1:
            raise TrainingError(
                f"Expected a block of one optimizer step; got {block.steps.shape[0]} steps."
            )
        return self.compute_loss(block.rows, block.steps[0])

    def compute_loss(self, rows: Rows[Any], cells: Tensor) -> Loss:
        """Loss of some cells."""
        begin = time.perf_counter()
        batch = to_device(rows.take(cells), self.device)
        self.data_loading_seconds += time.perf_counter() - begin
        if str(self.trainer.precision) in OTHER_TYPES:
            batch = self.trainer.precision_plugin.convert_input(batch)
        return self.loss(batch, self.kl_weight)

    def setup(self, stage: str) -> None:
        """Take this process's share of the cells."""
        for blocks in self.blocks:
            blocks.shard(self.global_rank, self.trainer.world_size)

    @property
    def rng_stream(self) -> tuple[int, ...]:
        """What the random numbers of this process follow from, beside seed and epoch."""
        return (self.global_rank,) if self.trainer.world_size > 1 else ()

    def on_fit_start(self) -> None:
        """Take up the optimizers of an earlier run."""
        if self.on_start is not None:
            self.on_start()
        for optimizer in self.trainer.optimizers:
            align_optimizer_state(optimizer)

    def on_train_start(self) -> None:
        """Note that there is something to train; forget what a search before it has left."""
        self.started = True
        self.history.truncate(self.epoch)
        self.n_cells_seen, self.n_epochs_done = self.n_cells_before, self.current_epoch
        self.trainer.should_stop = self.trainer.should_stop or self.interrupted

    def log(self, name: str, value: Any, *arguments: Any, **words: Any) -> None:
        """Log a metric as Lightning does, and note that its value is new."""
        self.epoch_logged[name] = self.epoch
        super().log(name, value, *arguments, **words)

    def is_fresh(self, name: str) -> bool:
        """Whether a metric has a value of this epoch; None of an earlier one is taken for new."""
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
        self.step_of_epoch = 0
        self.validated = self.train_logged = False
        self.set_kl_weight()
        loader = self.trainer.train_dataloader
        if isinstance(loader, EpochBlocks):
            loader.set_epoch(self.epoch)
        # Lightning's weight averaging goes through the cells once more, for the statistics of
        # batch normalisation alone; its flag is gone when this epoch ends.
        self.has_extra_epoch = bool(getattr(self.trainer.fit_loop, "_skip_backward", False))
        if self.has_extra_epoch:
            for parameter in self.parameters():
                parameter.grad = None

    def set_kl_weight(self) -> None:
        """Give the KL term its weight for this epoch and step, counted over all runs."""
        self.kl_weight.fill_(self.warmup.weight_at(self.epoch, self.first_step + self.global_step))

    def training_step(self, batch: StepBlock, batch_idx: int) -> Tensor | None:
        """Loss of one step, to be minimised; None where the steps of a block have been made."""
        if not self.automatic_optimization:
            self.run_block(batch)
            objective = None
        else:
            self.update_kl_weight()
            loss = self.single_step_loss(batch)
            objective = self.add_to_metrics(loss)
            self.log_step(loss)
        if self.trainer.is_last_batch:
            self.train_logged = True
            self.log_loss_sums(self.train_loss_sums)
            self.log(
                "kl_weight", self.kl_weight.clone(), on_step=False, on_epoch=True, batch_size=1
            )
        return objective

    def run_block(self, block: StepBlock) -> None:
        """Make the optimizer steps of a block; Lightning counts them as if it had made each.

        Nobody else looks at single steps, or the block would have one.
        """
        optimizer: Any = self.optimizers()
        steps: Any = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        watching = self.step_callbacks()
        if self.cuda_graph_step is not None:
            block = StepBlock(block.rows, block.steps.to(self.device, non_blocking=True))
        for cells in block.steps:
            self.update_kl_weight()
            steps.increment_ready()
            if self.cuda_graph_step is None:
                self.run_step(block.rows, cells, optimizer.optimizer, watching)
            else:
                self.cuda_graph_step.run_step(block.rows, cells, optimizer.optimizer, watching)
            self.train_loss_sums.count(len(cells) - getattr(block.rows, "n_labelled", 0))
            steps.increment_completed()
            self.step_of_epoch += 1
            if self.trainer.should_stop:
                break

    def run_step(
        self, rows: Rows[Any], cells: Tensor, optimizer: Any, step_callbacks: Sequence[Any]
    ) -> None:
        """Make one optimizer step; a device is asked for all of it, and nothing is read back."""
        for callback in step_callbacks:
            callback.on_step_start(self.step_of_epoch)
        loss = self.compute_loss(rows, cells)
        self.train_loss_sums.accumulate(loss)
        optimizer.zero_grad()
        for callback in step_callbacks:
            callback.on_before_backward(self.trainer, self, loss.loss)
        loss.loss.backward()
        for callback in step_callbacks:
            callback.on_before_optimizer_step(self.trainer, self, optimizer)
        optimizer.step()
        for callback in step_callbacks:
            callback.on_step_end()

    def step_callbacks(self) -> list[Any]:
        """Callbacks that look at every step of a block."""
        return [
            callback
            for callback in self.trainer.callbacks  # type: ignore[attr-defined]
            if hasattr(callback, "on_step_start")
        ]

    def update_kl_weight(self) -> None:
        """Set the KL weight of a step, where it changes from step to step."""
        if self.warmup.by_step:
            self.set_kl_weight()

    def add_to_metrics(self, loss: Loss) -> Tensor:
        """Objective of a step whose loss has been added to the metrics of the epoch."""
        self.train_loss_sums.add(loss)
        return loss.loss

    def log_step(self, loss: Loss) -> None:
        """Log a step by itself, where that was asked for."""
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
        """Draw the same noise for validation as in every other epoch."""
        self.validation_loss_sums.clear()
        self.validation_noise.enter_context(isolated_rng(self.seed, "validation", *self.rng_stream))

    def validation_step(self, batch: StepBlock, batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        self.validation_loss_sums.add(self.single_step_loss(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.validation_noise.close()
        if self.validation_loss_sums.n_cells:
            self.log_loss_sums(self.validation_loss_sums)
            self.validated = not self.trainer.sanity_checking

    def log_loss_sums(self, tally: LossSums) -> None:
        """Log the means of an epoch over all processes, still on the device."""
        if self.trainer.world_size > 1 and tally.sums is not None:
            reduce = self.trainer.strategy.reduce
            tally.sums = reduce(tally.sums, reduce_op="sum")
            tally.extra_sums = tuple(reduce(part, reduce_op="sum") for part in tally.extra_sums)
        self.log_dict(
            {k: v.float() for k, v in tally.means().items()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
        )

    def on_train_epoch_end(self) -> None:
        """Read the metrics of the epoch, all at once, into the history."""
        if self.has_extra_epoch or not self.train_loss_sums.n_cells:
            return  # no training: a pass for statistics, or stopped before the first batch
        self.n_cells_seen += self.train_loss_sums.n_cells * self.trainer.world_size
        self.n_epochs_done = self.current_epoch + 1
        if not self.train_logged:
            # The epoch was cut short (max_steps, a time limit): no batch was known as its last.
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

    def stop_if_loss_not_finite(self, read: Mapping[str, float]) -> None:
        """End the run where a loss of the epoch is not finite."""
        for what, name in (("training", "train_loss"), ("validation", "validation_loss")):
            if not math.isfinite(read.get(name, 0.0)) and self.stop_at_nan:
                self.nan_event = (
                    self.nan_event or f"the {what} loss was {read[name]} in epoch {self.epoch}"
                )
                self.trainer.should_stop = True

    def save_model(self, folder: Path, training: dict[str, Any] | None = None) -> None:
        """Write the model as it is now into a folder that can be loaded by itself.

        Raises
        ------
        TrainingError
            If the run does not know how its model is saved.
        """
        if self.files is None:
            raise TrainingError(
                "This plan does not know how its model is saved. Train through model.train(), "
                "or give Plan(files=...)."
            )
        self.files.save(folder, self.history, training or {})

    def call_callbacks(self, event: str, /, **payload: Any) -> None:
        """Call the method of this name of every callback that has one, with the trainer and this.

        Events of the package: `on_epoch_complete()` after training and validation of an epoch,
        `on_stop(reason)` once when a run ends. Callbacks may emit events of their own.
        """
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            method = getattr(callback, event, None)
            if callable(method):
                method(self.trainer, self, **payload)

    def note_best(self, best: BestEpoch) -> None:
        """Keep what a callback found best, for the report."""
        self.best[best.monitor] = best


def read_metrics(values: list[Any]) -> list[float]:
    """Numbers of metrics; a device is asked once for all that it has."""
    tensors = [torch.as_tensor(value).detach().double().reshape(()) for value in values]
    read = [0.0] * len(tensors)
    for device in {tensor.device for tensor in tensors}:
        places = [i for i, tensor in enumerate(tensors) if tensor.device == device]
        for place, number in zip(
            places, torch.stack([tensors[i] for i in places]).tolist(), strict=True
        ):
            read[place] = number
    return read

"""The loop over the optimizer steps of a block, which runs without returning to Lightning."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar, final

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Loss, Module, Rows, StepBlock, to_device
from cellvae.errors import TrainingError
from cellvae.train.loop.cuda_graph import CUDAGraphStep, StepCapturer
from cellvae.train.loop.loss_sums import LossSums
from cellvae.train.loop.steps.gradient_step import LossFunction, Step
from cellvae.train.loop.steps_per_block import CaptureDecision, StepsPerBlock

B = TypeVar("B", bound=tuple)
# Precisions of Lightning in which weights and cells have another dtype than float32.
NON_DEFAULT_DTYPES = ("64-true", "16-true", "bf16-true")


class LoopedPlan(Protocol):
    """What the loop needs of a :class:`TrainingPlan`."""

    @property
    def module(self) -> Module[Any]:
        """The network and its loss."""
        ...

    @property
    def trainer(self) -> pl.Trainer:
        """Lightning's trainer of the run."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def kl_weight(self) -> Float[Tensor, ""]:
        """Weight of the KL terms in this step."""
        ...

    @property
    def train_loss_sums(self) -> LossSums:
        """Sums of the training loss over the epoch."""
        ...

    def optimizers(self) -> Any:
        """Lightning's wrapper of the optimizer."""
        ...

    def update_kl_weight(self) -> None:
        """Set the KL weight of the next step."""
        ...


@final
class StepLoop:
    """Computes losses and, in blocks of several steps, makes the optimizer steps.

    Parameters
    ----------
    plan
        Training plan that the loop belongs to.
    loss
        `module.loss`, compiled or not, for validation.
    step
        What a training batch changes.

    Attributes
    ----------
    steps_per_block
        Number of optimizer steps in a block; Lightning makes the step where it is one.
    placement, placement_reason
        Where the cells are stored during the run, and why.
    capture
        Whether steps are captured in a CUDA graph.
    cuda_graph_step
        The captured step; None where no step is captured.
    step_of_epoch
        Optimizer steps of the loop in this epoch.
    data_loading_seconds
        Wall time spent on reading batches.
    """

    def __init__(self, plan: LoopedPlan, loss: LossFunction, step: Step) -> None:
        self.plan = plan
        self.loss = loss
        self.step = step
        self.steps_per_block = StepsPerBlock(number=1, reason="")
        self.placement: Literal["device", "memory"] = "memory"
        self.placement_reason = ""
        self.capture = CaptureDecision(wanted=False, reason="")
        self.cuda_graph_step: CUDAGraphStep | None = None
        self.step_of_epoch = 0
        self.data_loading_seconds = 0.0

    def set_steps_per_block(self, steps: StepsPerBlock) -> None:
        """Set the number of optimizer steps in a block."""
        self.steps_per_block = steps

    def set_placement(self, placement: Literal["device", "memory"], reason: str) -> None:
        """Note where the cells are stored during the run."""
        self.placement, self.placement_reason = placement, reason

    def set_capture(
        self,
        decision: CaptureDecision,
        capturer: StepCapturer | None = None,
        *,
        compare: bool = False,
    ) -> None:
        """Capture steps in a CUDA graph, if a capturer is given.

        Parameters
        ----------
        decision
            Whether steps are captured, and why.
        capturer
            Captures a step.
        compare
            Whether the first replayed steps are compared with plain ones.
        """
        self.capture = decision
        self.plan.train_loss_sums.add_at_once(enabled=capturer is not None)
        if capturer is not None:
            self.cuda_graph_step = CUDAGraphStep(
                self.run_step,
                self.plan.module,
                capturer,
                self.step,
                self.changed_tensors if compare else None,
            )

    def changed_tensors(self) -> list[tuple[Tensor, ...]]:
        """Sums of the loss, and what else a step changes beside module and optimizers."""
        sums = self.plan.train_loss_sums
        callback_tensors = [
            tensor
            for callback in self.step_callbacks()
            for tensor in getattr(callback, "changed_tensors", list)()
        ]
        summed = () if sums.sums is None else (sums.sums, *sums.extra_sums)
        return [summed, (*self.step.changed_tensors(), *callback_tensors)]

    @property
    def capture_reason(self) -> str:
        """How many steps were replayed from a CUDA graph, or why none were."""
        graph_step = self.cuda_graph_step
        return self.capture.reason if graph_step is None else graph_step.reason

    def begin_epoch(self) -> None:
        """Count the steps from zero."""
        self.step_of_epoch = 0

    def read_batch(self, rows: Rows[B], cells: Tensor) -> B:
        """Batch of cells, given by their indices, where the weights are."""
        begin = time.perf_counter()
        batch = to_device(rows.take(cells), self.plan.device)
        self.data_loading_seconds += time.perf_counter() - begin
        trainer = self.plan.trainer
        if str(trainer.precision) in NON_DEFAULT_DTYPES:
            batch = trainer.precision_plugin.convert_input(batch)
        return batch

    def single_step_loss(self, block: StepBlock, *, training: bool) -> Loss:
        """Loss of a block of one step.

        Parameters
        ----------
        block
            The block.
        training
            Whether it is the loss of the step, which is minimised; otherwise that of the module.

        Raises
        ------
        TrainingError
            If the block has several steps.
        """
        if block.steps.shape[0] != 1:
            raise TrainingError(
                f"Expected a block of one optimizer step; got {block.steps.shape[0]} steps."
            )
        batch = self.read_batch(block.rows, block.steps[0])
        return (self.step.loss if training else self.loss)(batch, self.plan.kl_weight)

    def run_block(self, block: StepBlock) -> None:
        """Make the optimizer steps of a block and count them as Lightning counts its own.

        No hook of Lightning runs between the steps: where a callback needs one, blocks have one
        step.
        """
        plan = self.plan
        optimizer = plan.optimizers()
        steps: Any = plan.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        callbacks = self.step_callbacks()
        run_step = self.run_step
        if self.cuda_graph_step is not None:
            run_step = self.cuda_graph_step.run_step
            block = StepBlock(block.rows, block.steps.to(plan.device, non_blocking=True))
        for cells in block.steps:
            plan.update_kl_weight()
            steps.increment_ready()
            run_step(block.rows, cells, optimizer.optimizer, callbacks)
            plan.train_loss_sums.count(len(cells) - getattr(block.rows, "n_labelled", 0))
            steps.increment_completed()
            self.step_of_epoch += 1
            if plan.trainer.should_stop:
                break

    def run_step(
        self, rows: Rows[Any], cells: Tensor, optimizer: Any, callbacks: Sequence[Any]
    ) -> None:
        """Make one optimizer step; all of it is queued on the device and nothing is read back."""
        plan = self.plan
        for callback in callbacks:
            callback.on_step_start(self.step_of_epoch)
        batch = self.read_batch(rows, cells)
        self.step.update(batch, plan.kl_weight, optimizer, CallbackHooks(plan, callbacks))
        for callback in callbacks:
            callback.on_step_end()

    def step_callbacks(self) -> list[Any]:
        """Callbacks that have the step hooks of blocks."""
        callbacks: list[pl.Callback] = self.plan.trainer.callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if hasattr(callback, "on_step_start")]


@final
class CallbackHooks:
    """Hooks of callbacks within the update of a step.

    Parameters
    ----------
    plan
        Training plan of the run.
    callbacks
        Those that have the step hooks of blocks.
    """

    def __init__(self, plan: LoopedPlan, callbacks: Sequence[Any]) -> None:
        self.plan = plan
        self.callbacks = callbacks

    def before_backward(self, loss: Loss) -> None:
        """Add the loss to the sums of the epoch; callbacks see it."""
        self.plan.train_loss_sums.accumulate(loss)
        for callback in self.callbacks:
            callback.on_before_backward(self.plan.trainer, self.plan, loss.loss)

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Callbacks see the gradients."""
        for callback in self.callbacks:
            callback.on_before_optimizer_step(self.plan.trainer, self.plan, optimizer)

"""The loop over the optimizer steps of a block, which runs without returning to Lightning."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, final

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Loss, Module, Rows, StepBlock, to_device
from cellvae.errors import TrainingError
from cellvae.train.loop.cuda_graph import CUDAGraphStep, StepCapturer
from cellvae.train.loop.loss_sums import LossSums
from cellvae.train.loop.steps_per_block import CaptureDecision, StepsPerBlock

LossFunction = Callable[[Any, Tensor], Loss]
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
        `module.loss`, compiled or not.

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

    def __init__(self, plan: LoopedPlan, loss: LossFunction) -> None:
        self.plan = plan
        self.loss = loss
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

    def set_capture(self, decision: CaptureDecision, capturer: StepCapturer | None = None) -> None:
        """Capture steps in a CUDA graph, if a capturer is given."""
        self.capture = decision
        if capturer is not None:
            self.cuda_graph_step = CUDAGraphStep(self.run_step, self.plan.module, capturer)

    @property
    def capture_reason(self) -> str:
        """How many steps were replayed from a CUDA graph, or why none were."""
        graph_step = self.cuda_graph_step
        return self.capture.reason if graph_step is None else graph_step.reason

    def begin_epoch(self) -> None:
        """Count the steps from zero."""
        self.step_of_epoch = 0

    def compute_loss(self, rows: Rows[Any], cells: Tensor) -> Loss:
        """Loss of a batch of cells, given by their indices."""
        begin = time.perf_counter()
        batch = to_device(rows.take(cells), self.plan.device)
        self.data_loading_seconds += time.perf_counter() - begin
        trainer = self.plan.trainer
        if str(trainer.precision) in NON_DEFAULT_DTYPES:
            batch = trainer.precision_plugin.convert_input(batch)
        return self.loss(batch, self.plan.kl_weight)

    def single_step_loss(self, block: StepBlock) -> Loss:
        """Loss of a block of one step.

        Raises
        ------
        TrainingError
            If the block has several steps.
        """
        if block.steps.shape[0] != 1:
            raise TrainingError(
                f"Expected a block of one optimizer step; got {block.steps.shape[0]} steps."
            )
        return self.compute_loss(block.rows, block.steps[0])

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
        loss = self.compute_loss(rows, cells)
        plan.train_loss_sums.accumulate(loss)
        optimizer.zero_grad()
        for callback in callbacks:
            callback.on_before_backward(plan.trainer, plan, loss.loss)
        loss.loss.backward()
        for callback in callbacks:
            callback.on_before_optimizer_step(plan.trainer, plan, optimizer)
        optimizer.step()
        for callback in callbacks:
            callback.on_step_end()

    def step_callbacks(self) -> list[Any]:
        """Callbacks that have the step hooks of blocks."""
        callbacks: list[pl.Callback] = self.plan.trainer.callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if hasattr(callback, "on_step_start")]

"""Optimizer steps replayed from a CUDA graph, and when a step can be captured in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, final

import lightning.pytorch as pl
import torch
from torch import Tensor

from cellvae.contracts import Module, Rows
from cellvae.core.log import logger, warn
from cellvae.core.platform.device_kind import is_cuda
from cellvae.errors import TrainingWarning
from cellvae.train.loop.steps.gradient_step import Step
from cellvae.train.loop.steps.step_state import (
    changed_tensors,
    copy_state,
    find_difference,
    restore_state,
)
from cellvae.train.loop.steps_per_block import STEP_HOOKS, CaptureDecision, StepsPerBlock
from cellvae.train.options.train_options import TrainOptions

Replay: TypeAlias = Callable[[], None]
"""Function that makes a step, or replays a captured one."""
StepFunction: TypeAlias = Callable[[Rows[Any], Tensor, Any, Sequence[Any]], None]
"""Function of rows, indices of cells, optimizer and callbacks that makes one optimizer step."""
N_WARMUP_STEPS = 3
"""Steps that run before one is captured, so that all memory has been allocated."""
N_COMPARED_STEPS = 5
"""Replayed steps that are compared with plain ones after the first capture; later, one."""


class StepCapturer(Protocol):
    """Captures a step, so that it can be replayed."""

    def warm_up(self, step: Replay) -> None:
        """Make a step without a graph, on the stream that a capture needs."""
        ...

    def capture(self, step: Replay) -> Replay:
        """Replay function of a step, which is captured and not made."""
        ...


@final
class CUDAGraphCapturer:
    """Captures steps as CUDA graphs.

    Parameters
    ----------
    device
        CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def warm_up(self, step: Replay) -> None:
        """Make a step on a side stream, as torch requires before a capture."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def capture(self, step: Replay) -> Replay:
        """Replay function of a graph of all kernels that a step launches."""
        graph = torch.cuda.CUDAGraph()
        index = torch.cuda.current_device() if self.device.index is None else self.device.index
        generator = torch.cuda.default_generators[index]
        state = generator.graphsafe_get_state()
        generator.graphsafe_set_state(state.clone_state())
        try:
            with torch.cuda.graph(graph):
                step()
        except Exception:
            # A capture that failed leaves its generator unable to draw outside of one.
            generator.graphsafe_set_state(state)
            raise
        replay: Replay = graph.replay
        return replay


def choose_capture(
    options: TrainOptions,
    callbacks: Sequence[pl.Callback],
    module: Module[Any],
    steps: StepsPerBlock,
    device: torch.device,
    placement: str,
) -> CaptureDecision:
    """Decide whether the steps of a run are captured in a CUDA graph.

    Parameters
    ----------
    options
        Options of the run.
    callbacks
        Callbacks of the run.
    module
        The network.
    steps
        Optimizer steps of a block.
    device
        Device of the run.
    placement
        Where the cells are stored.
    """
    refused = why_not_capturable(options, callbacks, module, steps, device, placement)
    return CaptureDecision(
        wanted=not refused, reason=refused or "one CUDA graph for all full batches"
    )


def why_not_capturable(
    options: TrainOptions,
    callbacks: Sequence[pl.Callback],
    module: Module[Any],
    steps: StepsPerBlock,
    device: torch.device,
    placement: str,
) -> str:
    """Reason why steps cannot be captured; empty if they can."""
    if options.capture_steps is False:
        return "capture_steps=False"
    if not is_cuda(device):
        return f"the run is on {device.type}"
    if steps.number == 1:
        return steps.reason
    if placement != "device":
        return "the cells are not on the device"
    if options.compile.enabled:
        return "the loss is compiled"
    if options.optimizer.optimizer_creator is not None:
        return "the optimizer is one of the user's own"
    if options.trainer.get("deterministic"):
        return "deterministic is given"
    if not options.optimizer.fused_optimizer:
        return "the optimizer is not fused"
    if not module.cuda_graph_safe:
        return f"the steps of {type(module).__name__} depend on the data"
    for callback in callbacks:
        if has_step_hook(callback) and not getattr(callback, "supports_cuda_graphs", False):
            return f"{type(callback).__name__} has hooks at every step"
    return ""


def has_step_hook(callback: pl.Callback) -> bool:
    """Whether a callback has a hook at every step."""
    if hasattr(callback, "on_step_start"):
        return True
    names = [name for name in STEP_HOOKS if not name.startswith("on_train_batch")]
    return any(
        getattr(type(callback), name, None) is not getattr(pl.Callback, name) for name in names
    )


@final
class CUDAGraphStep:
    """Optimizer step of full batches, replayed from a CUDA graph.

    The indices of the cells are copied to the tensor that the graph reads. The first steps, and
    the smaller last batch of an epoch, run without a graph. The step is captured again when
    learning rate, weight decay, `requires_grad` of a parameter, the mode of a layer, what the step
    trains beside the module or the `capture_signature()` of a callback has changed.

    Parameters
    ----------
    run_step
        Makes one step without a graph.
    module
        The network.
    capturer
        Captures a step in a graph.
    trained
        The step, whose own optimizers are captured too.
    changed_tensors
        Sums of the loss, and what else a step changes beside module and optimizers. If given, the
        first replayed steps are made plainly too, from the same state; where they differ, the
        plain ones count, a warning says in what, and nothing is replayed from then on.
    """

    def __init__(
        self,
        run_step: StepFunction,
        module: Module[Any],
        capturer: StepCapturer,
        trained: Step,
        changed_tensors: Callable[[], Sequence[Sequence[Tensor]]] | None = None,
    ) -> None:
        self.run_step_eagerly = run_step
        self.module = module
        self.capturer = capturer
        self.trained = trained
        self.changed_tensors = changed_tensors
        self.n_compared = 0
        self.n_to_compare = 0
        self.static_cells = torch.zeros(0, dtype=torch.int64)
        self.graph: Replay | None = None
        self.captured_signature: Any = None
        self.n_warmed_up = 0
        self.n_replayed = 0
        self.failure = ""

    def run_step(
        self, rows: Rows[Any], cells: Tensor, optimizer: Any, callbacks: Sequence[Any]
    ) -> None:
        """Make one step, from the graph if there is one."""
        if not len(self.static_cells):
            self.static_cells = torch.zeros_like(cells)
        if len(cells) != len(self.static_cells) or self.failure:
            self.run_step_eagerly(rows, cells, optimizer, callbacks)
            return
        self.static_cells.copy_(cells)
        now = self.capture_signature(rows, optimizer, callbacks)
        if now != self.captured_signature:
            self.captured_signature, self.graph, self.n_warmed_up = now, None, 0

        def step() -> None:
            self.run_step_eagerly(rows, self.static_cells, optimizer, callbacks)

        if self.graph is None and self.n_warmed_up < N_WARMUP_STEPS:
            self.n_warmed_up += 1
            self.capturer.warm_up(step)
            return
        if self.graph is None:
            for each in (optimizer, *self.trained.own_optimizers):
                for group in each.param_groups:
                    group["capturable"] = True
                # Torch warns of steps without a graph, of which every epoch has one.
                each._warned_capturable_if_run_uncaptured = True
            try:
                self.graph = self.capturer.capture(step)
            except Exception as failure:
                # What is wrong with the step itself is raised by the step without a graph.
                self.failure = f"{type(failure).__name__}: {failure}".splitlines()[0]
                logger.info("A step could not be captured in a CUDA graph: %s", failure)
                step()
                return
            if self.changed_tensors is not None:
                self.n_to_compare = 1 if self.n_compared else N_COMPARED_STEPS
        if self.n_to_compare:
            self.compare_step(step, optimizer)
        else:
            self.graph()
            self.n_replayed += 1

    def compare_step(self, step: Replay, optimizer: Any) -> None:
        """Make a step plainly and from the graph; keep the result of the graph if both agree."""
        assert self.graph is not None and self.changed_tensors is not None
        optimizers = (optimizer, *self.trained.own_optimizers)
        tensors = changed_tensors(self.module, optimizers, *self.changed_tensors())
        device = self.static_cells.device
        before = copy_state(tensors, device)
        step()
        plain = copy_state(tensors, device)
        restore_state(tensors, before, device)
        self.graph()
        difference = find_difference(before, plain, copy_state(tensors, device))
        self.n_to_compare -= 1
        self.n_compared += 1
        if not difference:
            self.n_replayed += 1
            return
        restore_state(tensors, plain, device)
        self.failure = f"a step replayed from a CUDA graph differed from a plain one: {difference}"
        self.graph = None
        warn(
            f"Steps are not replayed from a CUDA graph, since {self.failure}. Training "
            "continues without it; capture_steps=False leaves out the comparison.",
            TrainingWarning,
        )

    def capture_signature(self, rows: Rows[Any], optimizer: Any, callbacks: Sequence[Any]) -> Any:
        """Values that are fixed in a captured graph."""
        groups = [
            tuple((k, float(v)) for k, v in group.items() if isinstance(v, int | float))
            for each in (optimizer, *self.trained.own_optimizers)
            for group in each.param_groups
            for group in [{k: v for k, v in group.items() if k != "capturable"}]
        ]
        trained = tuple(p.requires_grad for p in self.module.parameters())
        modes = tuple(part.training for part in self.module.modules())
        cells = id(getattr(rows, "rows", rows)), getattr(rows, "n_labelled", 0)
        signed = tuple(c.capture_signature() for c in callbacks if hasattr(c, "capture_signature"))
        return cells, tuple(groups), trained, modes, self.trained.is_on, signed

    @property
    def reason(self) -> str:
        """How many steps were replayed, or why none were."""
        return self.failure or f"{self.n_replayed:,} steps replayed from a CUDA graph"

"""Optimizer steps that a device repeats by itself: one recording, played once a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, final

import lightning.pytorch as pl
import torch
from torch import Tensor

from cellvae.contracts import Module, Rows
from cellvae.core.log import logger
from cellvae.train.loop.steps_per_block import STEP_HOOKS, CaptureDecision, StepsPerBlock
from cellvae.train.options.train_options import TrainOptions

if TYPE_CHECKING:
    from cellvae.train.loop.training_plan import TrainingPlan

Step = Callable[[], None]
N_WARMUP_STEPS = 3
"""Steps that are made as usual before one is recorded, so that all memory has been set aside."""


class StepCapturer(Protocol):
    """What makes a recording of a step."""

    def warm_up(self, step: Step) -> None:
        """Make a step as usual, where recorded ones will be made."""
        ...

    def capture(self, step: Step) -> Step:
        """Recording of a step, to be played; the step itself is not made."""
        ...


@final
class CUDAGraphCapturer:
    """Recorder of CUDA graphs.

    Parameters
    ----------
    device
        CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def warm_up(self, step: Step) -> None:
        """Make a step on a stream of its own, as a recording needs it."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def capture(self, step: Step) -> Step:
        """Graph of all that a step asks of the device."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        replay: Step = graph.replay
        return replay


def choose_capture(
    options: TrainOptions,
    callbacks: Sequence[pl.Callback],
    module: Module[Any],
    steps: StepsPerBlock,
    device: torch.device,
    placed: str,
) -> CaptureDecision:
    """Whether the steps of a run can be recorded.

    Parameters
    ----------
    options
        What was asked for.
    callbacks
        Callbacks of the run.
    module
        The mathematics of the model.
    steps
        Steps of a block.
    device
        Device of the run.
    placed
        Where the cells are kept.
    """
    refused = why_not_capturable(options, callbacks, module, steps, device, placed)
    return CaptureDecision(
        wanted=not refused, reason=refused or "one recording for all full batches"
    )


def why_not_capturable(
    options: TrainOptions,
    callbacks: Sequence[pl.Callback],
    module: Module[Any],
    steps: StepsPerBlock,
    device: torch.device,
    placed: str,
) -> str:
    """What keeps steps from being recorded; empty if nothing does."""
    if not options.capture_steps:
        return "not asked for (capture_steps=True)"
    if device.type != "cuda":
        return f"the run is on {device.type}"
    if steps.number == 1:
        return steps.reason
    if placed != "device":
        return "the cells are not on the device"
    if options.compile.enabled:
        return "the loss is compiled"
    if options.optimizer.optimizer_creator is not None:
        return "the optimizer is one of the user's own"
    if options.trainer.get("deterministic"):
        return "deterministic is given"
    if module.frozen_weights:
        return "a part of the network is kept as it is"
    if not module.cuda_graph_safe:
        return f"{type(module).__name__} decides within a step what it computes"
    for callback in callbacks:
        if has_step_hook(callback) and not getattr(callback, "supports_cuda_graphs", False):
            return f"{type(callback).__name__} looks at every step"
    return ""


def has_step_hook(callback: pl.Callback) -> bool:
    """Whether a callback does something at every step."""
    if hasattr(callback, "on_step_start"):
        return True
    names = [name for name in STEP_HOOKS if not name.startswith("on_train_batch")]
    return any(
        getattr(type(callback), name, None) is not getattr(pl.Callback, name) for name in names
    )


@final
class CUDAGraphStep:
    """Steps of a plan, made by playing a recording where that is the same.

    Full batches are: the numbers of their cells are copied to where the recording reads them. The
    last cells of an epoch, and the first steps, are made as usual. A recording is made anew when
    learning rate, weight decay, what is trained or the mode of a layer have changed.

    Parameters
    ----------
    plan
        Plan of the run.
    recorder
        What makes recordings.
    device
        Device of the run.
    """

    def __init__(self, plan: TrainingPlan, capturer: StepCapturer, device: torch.device) -> None:
        self.plan = plan
        self.capturer = capturer
        self.static_cells = torch.zeros(0, dtype=torch.int64, device=device)
        self.graph: Step | None = None
        self.captured_signature: Any = None
        self.n_warmed_up = 0
        self.n_replayed = 0
        self.failure = ""

    def run_step(
        self, rows: Rows[Any], cells: Tensor, optimizer: Any, watching: Sequence[Any]
    ) -> None:
        """Make one step, by playing the recording if there is one of it."""
        if not len(self.static_cells):
            self.static_cells = torch.zeros_like(cells)
        if len(cells) != len(self.static_cells) or self.failure:
            self.plan.run_step(rows, cells, optimizer, watching)
            return
        self.static_cells.copy_(cells)
        now = self.capture_signature(rows, optimizer)
        if now != self.captured_signature:
            self.captured_signature, self.graph, self.n_warmed_up = now, None, 0

        def step() -> None:
            self.plan.run_step(rows, self.static_cells, optimizer, watching)

        if self.graph is None and self.n_warmed_up < N_WARMUP_STEPS:
            self.n_warmed_up += 1
            self.capturer.warm_up(step)
            return
        if self.graph is None:
            for group in optimizer.param_groups:
                group["capturable"] = True
            # Torch warns of steps outside a recording, of which every epoch has one.
            optimizer._warned_capturable_if_run_uncaptured = True
            try:
                self.graph = self.capturer.capture(step)
            except RuntimeError as failure:
                self.failure = f"{type(failure).__name__}: {failure}".splitlines()[0]
                logger.info("A step could not be recorded, steps are made as usual: %s", failure)
                step()
                return
        self.graph()
        self.n_replayed += 1

    def capture_signature(self, rows: Rows[Any], optimizer: Any) -> Any:
        """What a recording holds for good."""
        groups = [
            tuple((k, float(v)) for k, v in group.items() if isinstance(v, int | float))
            for group in optimizer.param_groups
            for group in [{k: v for k, v in group.items() if k != "capturable"}]
        ]
        trained = tuple(p.requires_grad for p in self.plan.module.parameters())
        modes = tuple(part.training for part in self.plan.module.modules())
        kept = id(getattr(rows, "rows", rows)), getattr(rows, "n_labelled", 0)
        return kept, tuple(groups), trained, modes

    @property
    def reason(self) -> str:
        """How many steps were played, or why none were."""
        return self.failure or f"{self.n_replayed:,} steps played from a recording"

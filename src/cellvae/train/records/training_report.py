"""Report of a training run: what it did, and why it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal[
    "completed",
    "stopped_early",
    "time_limit",
    "interrupted",
    "terminated",
    "not_finite",
    "failed",
]


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Summary of one call of `train`.

    Parameters
    ----------
    status
        How the run ended.
    reason
        The same as a sentence.
    epochs, max_epochs
        Completed and requested epochs.
    monitor, best_epoch, best_score
        Monitored metric, the best epoch by it, and its score; None if nothing was monitored.
    best_path
        Folder of the best model that was saved.
    restored_epoch
        Epoch whose weights the model has; None if it has those of the last step.
    seconds
        Wall time of training and validation.
    cells_per_second
        Training cells seen per second.
    seed
        Seed of the run.
    kl_weight
        KL weight at the end.
    first_epoch, resumed_epoch
        Number of the first epoch, counted over all runs of the model; and number of the epoch at
        which a resumed run continued.
    n_skipped, nan
        Optimizer steps skipped because something was not finite, and what that was.
    peak_memory_mib, peak_gpu_memory_mib
        Peak memory of the process, and of tensors on the GPU; MiB.
    run_dir
        Folder of the run.
    steps_per_block, steps_reason
        Optimizer steps that Lightning saw as one batch, and why so many.
    capture_reason
        How many steps were replayed from a CUDA graph, or why none were.
    placement, placement_reason
        Where the cells were stored, and why there.
    """

    status: Status
    reason: str
    epochs: int
    max_epochs: int
    monitor: str | None = None
    best_epoch: int | None = None
    best_score: float | None = None
    best_path: str | None = None
    restored_epoch: int | None = None
    seconds: float = 0.0
    cells_per_second: float = 0.0
    seed: int = 0
    kl_weight: float | None = None
    first_epoch: int = 0
    resumed_epoch: int | None = None
    n_skipped: int = 0
    nan: dict[str, Any] | None = None
    peak_memory_mib: float | None = None
    peak_gpu_memory_mib: float | None = None
    run_dir: str | None = None
    steps_per_block: int = 1
    steps_reason: str = ""
    capture_reason: str = ""
    placement: str = "memory"
    placement_reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Values for a file."""
        return asdict(self)

    def summary_rows(self) -> list[tuple[str, str]]:
        """Names and values of a printed report."""
        shown = [
            ("epochs", f"{self.epochs} of {self.max_epochs}"),
            ("ended", self.reason),
        ]
        if self.best_epoch is not None and self.best_score is not None:
            shown.append(("best", f"epoch {self.best_epoch}, {self.monitor} {self.best_score:.3f}"))
        shown.append(
            (
                "weights",
                "of the last step"
                if self.restored_epoch is None
                else f"of epoch {self.restored_epoch}, brought back",
            )
        )
        shown.append(
            ("time", f"{self.seconds:.1f} s, {self.cells_per_second:,.0f} cells per second")
        )
        if self.peak_memory_mib is not None:
            gpu = self.peak_gpu_memory_mib
            text = f"{self.peak_memory_mib:,.0f} MiB at most"
            shown.append(("memory", text + (f", {gpu:,.0f} MiB on the GPU" if gpu else "")))
        if self.n_skipped:
            steps = "step" if self.n_skipped == 1 else "steps"
            shown.append(("left out", f"{self.n_skipped:,} {steps}, not finite"))
        if self.steps_reason:
            shown.append(("steps", f"{self.steps_per_block} a block ({self.steps_reason})"))
        if self.placement == "device":
            shown.append(("cells", f"on the device ({self.placement_reason})"))
            shown.append(("captured", self.capture_reason))
        shown.append(("seed", str(self.seed)))
        return shown

    def __str__(self) -> str:
        return "\n".join(f"{name:<8} {value}" for name, value in self.summary_rows())

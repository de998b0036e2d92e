"""What a training run was asked to do: all defaults of a run stand here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from cellvae.errors import InvalidOptionError
from cellvae.options import Options, option

OptimizerCreator = Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """How cells are divided into training, validation and test."""

    train_size: float | None = option(None, above=0, at_most=1)
    validation_size: float | None = option(None, at_least=0, at_most=1)
    shuffle_set_split: bool = True
    external_indexing: Any = None


@dataclass(frozen=True, kw_only=True)
class LoaderOptions(Options):
    """How batches are cut and fetched."""

    batch_size: int = option(128, at_least=1)
    shuffle: bool = True
    drop_last: bool = False
    num_workers: int = option(0, at_least=0)
    n_samples_per_label: int | None = option(None, at_least=1)
    """Cells of each label that are learned from in an epoch; for models that learn labels."""


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Options):
    """Which optimizer moves the weights."""

    optimizer: Literal["Adam", "AdamW", "Custom"] = "Adam"
    optimizer_creator: OptimizerCreator | None = None
    lr: float = option(1e-3, at_least=0)
    weight_decay: float = option(1e-6, at_least=0)
    eps: float = option(0.01, at_least=0)
    update_only_decoder: bool = False
    fused_optimizer: bool = True
    """Whether one kernel moves all weights, where the device has one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.optimizer == "Custom") != (self.optimizer_creator is not None):
            raise InvalidOptionError(
                "Expected optimizer='Custom' together with optimizer_creator=<function of the "
                f"parameters>; got optimizer={self.optimizer!r} and "
                f"optimizer_creator={self.optimizer_creator!r}."
            )


@dataclass(frozen=True, kw_only=True)
class PlateauOptions(Options):
    """When the learning rate is lowered because a metric stopped improving."""

    factor: float = option(0.6, above=0, at_most=1)
    patience: int = option(30, at_least=0)
    threshold: float = option(0.0, at_least=0)
    metric: str = "elbo_validation"
    minimum: float = option(0.0, at_least=0)


@dataclass(frozen=True, kw_only=True)
class WarmupOptions(Options):
    """How the weight of the KL term grows: by epochs, or by steps where epochs is None.

    `n_epochs="auto"` takes half of the run and at most 400 epochs, so that the weight reaches its
    maximum within the run.
    """

    n_epochs: int | Literal["auto"] | None = option("auto", at_least=0)
    n_steps: int | None = option(None, at_least=0)
    minimum: float = option(0.0, at_least=0)
    maximum: float = option(1.0, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minimum > self.maximum:
            raise InvalidOptionError(
                f"Expected min_kl_weight to be at most max_kl_weight; "
                f"got {self.minimum:g} and {self.maximum:g}."
            )


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingOptions(Options):
    """When training stops before its last epoch."""

    monitor: str | list[str] | tuple[str, ...] = "elbo_validation"
    patience: int = option(45, at_least=0)
    min_delta: float = option(0.0, at_least=0)
    mode: Literal["min", "max", "auto"] = "auto"
    warmup_epochs: int | Literal["kl"] = option(0, at_least=0)
    restore_best: bool | str = True
    combine: Literal["any", "all"] = "any"
    patience_epochs: int | None = option(None, at_least=1)
    baseline: float | None = None
    baseline_epochs: int = option(0, at_least=0)
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None
    check_finite: bool = True
    verbose: bool = False

    @property
    def monitors(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return (self.monitor,) if isinstance(self.monitor, str) else tuple(self.monitor)


@dataclass(frozen=True, kw_only=True)
class ProgressOptions(Options):
    """What is shown while training goes on."""

    enabled: bool = True
    refresh_rate: int = option(1, at_least=0)
    simple: bool = True


@dataclass(frozen=True, kw_only=True)
class CompileOptions(Options):
    """Whether the loss is compiled by torch, and how."""

    enabled: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """One training run, as the user asked for it."""

    max_epochs: int | None = option(None, at_least=1)
    seed: int | None = option(None, at_least=0)
    accelerator: str = "auto"
    devices: int | str | list[int] | tuple[int] = "auto"
    check_val_every_n_epoch: int | None = option(None, at_least=1)
    log_steps: bool = False
    steps_per_block: int | Literal["auto"] = option("auto", at_least=1)
    """Optimizer steps that Lightning sees as one batch, where nothing watches single steps."""
    capture_steps: bool = False
    """Whether a GPU plays steps from a recording, where they can be recorded; off until it has been
    seen on one."""
    placement: Literal["auto", "device", "memory"] = "auto"
    """Where the cells of a run are kept: on the GPU if they fit there with margin, or in memory."""
    learning_rate_monitor: bool | None = None
    accumulate: Mapping[int, int] | None = None
    """Batches whose gradients are added up before a step, from an epoch on."""
    lr_schedule: str | Callable[..., Any] | None = None
    """Name of a schedule of the learning rate, or a function from an optimizer to one."""
    on_nan: Literal["stop_restore", "raise", "skip_batch", "ignore"] = "stop_restore"
    on_interrupt: Literal["stop", "raise"] = "stop"
    resume: bool | str | Path | None = None
    run_dir: str | Path | None = None
    reset: bool = False
    without: tuple[str, ...] = ()
    """Default callbacks that the user does not want."""
    checkpoint_monitor: str | None = None
    split: SplitOptions = field(default_factory=SplitOptions)
    loader: LoaderOptions = field(default_factory=LoaderOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of parts of the loss, by the names that the model gives them."""
    warmup: WarmupOptions = field(default_factory=WarmupOptions)
    plateau: PlateauOptions | None = None
    early_stopping: EarlyStoppingOptions | None = None
    progress: ProgressOptions = field(default_factory=ProgressOptions)
    compile: CompileOptions = field(default_factory=CompileOptions)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `lightning.Trainer`, handed on as they are."""

"""Options of a training run, with all its defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cellvae.core.options import Options, option
from cellvae.errors import InvalidOptionError
from cellvae.train.options.adversarial_options import AdversarialOptions
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
    PlateauOptions,
    WarmupOptions,
)


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """How cells are divided into training, validation and test.

    Parameters
    ----------
    train_size
        Fraction of the cells that are trained on, from 0 to 1; by default 0.9.
    validation_size
        Fraction of the cells for validation, from 0 to 1; by default all others. The remaining
        cells are for testing.
    shuffle_set_split
        Whether cells are shuffled before they are divided.
    external_indexing
        Indices of the training, validation and test cells, in place of fractions.
    """

    train_size: float | None = option(None, above=0, at_most=1)
    validation_size: float | None = option(None, at_least=0, at_most=1)
    shuffle_set_split: bool = True
    external_indexing: Any = None


@dataclass(frozen=True, kw_only=True)
class LoaderOptions(Options):
    """How batches are cut and fetched.

    Parameters
    ----------
    batch_size
        Cells per optimizer step, of all devices together.
    batch_size_per_device
        Cells per optimizer step and device, in place of `batch_size`.
    shuffle
        Whether training cells come in another order in each epoch.
    drop_last
        Whether the last batch of an epoch is left out where it is smaller.
    num_workers
        Accepted for scvi-tools' sake: batches are cut in the process itself.
    n_samples_per_label
        Cells of each label that are learned from in an epoch; None for all. For models that learn
        labels.
    """

    batch_size: int = option(128, at_least=1)
    batch_size_per_device: int | None = option(None, at_least=1)
    shuffle: bool = True
    drop_last: bool = False
    num_workers: int = option(0, at_least=0)
    n_samples_per_label: int | None = option(None, at_least=1)


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingOptions(Options):
    """When training stops before its last epoch.

    Parameters
    ----------
    monitor
        Metric that is followed, or several.
    patience
        Checks without improvement before training stops.
    min_delta
        Change that counts as an improvement must be larger than this.
    mode
        Whether lower or higher is better; `"auto"` infers it from the name of the metric.
    warmup_epochs
        First epochs that are neither compared nor counted; `"kl"` for those of the KL warm-up.
    restore_best
        Whether the weights of the best epoch are restored at the end.
    combine
        Whether any of several metrics is enough to stop, or all must agree.
    patience_epochs
        Epochs without improvement before training stops, in place of checks.
    baseline
        Value that must be beaten at every check.
    baseline_epochs
        First epochs, in which the baseline need not be beaten.
    stopping_threshold
        Value that is good enough: training stops when the metric is better.
    divergence_threshold
        Value that is hopeless: training stops when the metric is worse.
    check_finite
        Whether training stops when the metric is not finite.
    verbose
        Whether every improvement is logged.
    """

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
    """What is shown during training.

    Parameters
    ----------
    enabled
        Whether a progress bar is shown.
    refresh_rate
        Batches between two updates of the progress bar.
    simple
        Whether the progress bar has one line for the whole run.
    """

    enabled: bool = True
    refresh_rate: int = option(1, at_least=0)
    simple: bool = True


@dataclass(frozen=True, kw_only=True)
class CompileOptions(Options):
    """Whether the loss is compiled by torch, and how.

    Parameters
    ----------
    enabled
        Whether the loss is compiled by torch.
    arguments
        Arguments of `torch.compile`.
    """

    enabled: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """All options of one training run.

    Parameters
    ----------
    max_epochs
        Passes over the training cells.
    seed
        Seed of split, order and noise.
    accelerator
        Where to train, as in `lightning.Trainer`; `"auto"` is a CUDA device if there is one.
    devices
        Devices of each node to train on, or how many, as in `lightning.Trainer`.
    num_nodes
        Computers to train on, as in `lightning.Trainer`; torchrun or SLURM starts the processes.
    sync_batchnorm
        Whether batch normalisation is over the cells of all devices, as on one; otherwise each
        device normalises over its own part of a batch.
    check_val_every_n_epoch
        Epochs between two validations; by default 1 where something follows their metrics.
    log_steps
        Whether the loss of single steps is logged.
    steps_per_block
        Optimizer steps that Lightning sees as one batch, where nothing watches single steps.
    capture_steps
        Whether a GPU replays steps from a CUDA graph, where they can be captured; `"auto"` compares
        the first replayed steps with plain ones, and goes on without a graph if they differ.
    placement
        Where the cells of a run are kept: on the GPU if they fit there with margin, or in memory.
    learning_rate_monitor
        Whether the learning rate is logged.
    accumulate
        Batches whose gradients are added up before a step, from an epoch on.
    lr_schedule
        Name of a schedule of the learning rate, or a function from an optimizer to one.
    ema_decay
        Decay of a moving average of the weights (`EMA`) that is updated with every step; validated
        and kept are the averaged weights. None for no average.
    on_nan
        What happens where a loss or gradient is not finite.
    on_interrupt
        Whether a run that Ctrl-C has ended returns, or raises KeyboardInterrupt.
    resume
        State of a run to continue; `"auto"` for the newest if there is one.
    run_dir
        Folder for everything that the run writes.
    reset
        Whether earlier training is forgotten.
    disabled_callbacks
        Names of default callbacks to leave out.
    checkpoint_monitor
        Metric by which the best model is kept in a checkpoint.
    split, loader, optimizer, warmup, plateau, adversarial, early_stopping, progress, compile
        Further options; None for what is off.
    loss_weights
        Weights of parts of the loss, by the names that the model gives them.
    trainer
        Further arguments of `lightning.Trainer`, passed on unchanged.
    """

    max_epochs: int | None = option(None, at_least=1)
    seed: int | None = option(None, at_least=0)
    accelerator: str = "auto"
    devices: int | str | list[int] | tuple[int] = "auto"
    num_nodes: int = option(1, at_least=1)
    sync_batchnorm: bool = True
    check_val_every_n_epoch: int | None = option(None, at_least=1)
    log_steps: bool = False
    steps_per_block: int | Literal["auto"] = option("auto", at_least=1)
    capture_steps: bool | Literal["auto"] = "auto"
    placement: Literal["auto", "device", "memory"] = "auto"
    learning_rate_monitor: bool | None = None
    accumulate: Mapping[int, int] | None = None
    lr_schedule: str | Callable[..., Any] | None = None
    ema_decay: float | None = option(None, at_least=0, at_most=0.99999)
    on_nan: Literal["stop_restore", "raise", "skip_batch", "ignore"] = "stop_restore"
    on_interrupt: Literal["stop", "raise"] = "stop"
    resume: bool | str | Path | None = None
    run_dir: str | Path | None = None
    reset: bool = False
    disabled_callbacks: tuple[str, ...] = ()
    checkpoint_monitor: str | None = None
    split: SplitOptions = field(default_factory=SplitOptions)
    loader: LoaderOptions = field(default_factory=LoaderOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    warmup: WarmupOptions = field(default_factory=WarmupOptions)
    plateau: PlateauOptions | None = None
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)
    early_stopping: EarlyStoppingOptions | None = None
    progress: ProgressOptions = field(default_factory=ProgressOptions)
    compile: CompileOptions = field(default_factory=CompileOptions)
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for epoch, n_batches in (self.accumulate or {}).items():
            if epoch < 0 or n_batches < 1:
                raise InvalidOptionError(
                    "Expected accumulate to name epochs from 0, each with at least 1 batch; "
                    f"got {dict(self.accumulate or {})}."
                )


class TrainingPlanConfig(dict[str, Any]):
    """Keyword arguments of `plan_kwargs`, as scvi-tools has them.

    `model.train(plan_config=TrainingPlanConfig(lr=1e-3))`. They are checked when `train` is called;
    `plan_kwargs` has precedence.
    """


class PyroTrainingPlanConfig(TrainingPlanConfig):
    """Keyword arguments of `plan_kwargs` for a model in Pyro."""


class SemiSupervisedTrainingPlanConfig(TrainingPlanConfig):
    """Keyword arguments of `plan_kwargs` for a model that learns labels."""


class TrainerConfig(dict[str, Any]):
    """Keyword arguments of `train` and of Lightning's trainer, as scvi-tools has them.

    `model.train(trainer_config=TrainerConfig(...))`. They are checked when `train` is called;
    arguments of `train` itself have precedence.
    """

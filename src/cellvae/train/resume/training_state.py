"""State of a run after a whole epoch: everything that the next epoch depends on."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from cellvae.core.log import logger
from cellvae.data.batches.split import Split
from cellvae.data.setup.cell_values import CellValues
from cellvae.errors import FileFormatError, ResumeError
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.kl_warmup import KLWarmup
from cellvae.train.records.history import History
from cellvae.train.records.run_state import BestEpoch


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """A run that can go on from the end of one of its epochs.

    Parameters
    ----------
    run_id
        Name of the run.
    identity
        What the run was made of: model, data and hyperparameters, as plain values.
    cell_values
        Values of each column that the run reads, by name.
    seed
        Seed of the run.
    first_epoch
        Number of its first epoch, counted over all runs of the model.
    n_epochs, n_steps
        Epochs completed and optimizer steps made in this run.
    n_cells_seen, seconds
        Training cells seen, and time taken so far.
    split
        Which cells are for training, validation and testing.
    warmup
        Growth of the KL weight.
    history
        Metrics by epoch, of earlier runs too.
    best
        What callbacks found best so far.
    module, optimizers, schedules, scaler, callbacks
        Their states.
    randomness
        States of the generators of torch, NumPy and Python.
    """

    run_id: str
    identity: dict[str, Any]
    cell_values: dict[str, CellValues]
    seed: int
    first_epoch: int
    n_epochs: int
    n_steps: int
    n_cells_seen: int
    seconds: float
    split: Split
    warmup: KLWarmup
    history: History
    best: tuple[BestEpoch, ...]
    module: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    schedules: list[dict[str, Any]]
    scaler: dict[str, Any]
    callbacks: dict[str, Any]
    randomness: dict[str, Any]

    def to_values(self) -> dict[str, Any]:
        """Tensors and plain values for a file."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        parts = ("train", "validation", "test")
        values["split"] = {p: torch.from_numpy(getattr(self.split, p)) for p in parts}
        values["warmup"] = asdict(self.warmup)
        values["history"] = self.history.to_json()
        values["cell_values"] = {k: v.to_values() for k, v in self.cell_values.items()}
        values["best"] = [asdict(best) for best in self.best]
        return values

    @classmethod
    def from_values(cls, values: Mapping[str, Any], path: Path) -> TrainingState:
        """State from the values of a file.

        Parameters
        ----------
        values
            What :meth:`to_values` gave.
        path
            The file, for messages.

        Raises
        ------
        FileFormatError
            If they are not those of a state.
        """
        try:
            fields = {name: values[name] for name in cls.__dataclass_fields__}
            fields["split"] = Split(**{k: v.numpy() for k, v in values["split"].items()})
            fields["warmup"] = KLWarmup(**values["warmup"])
            columns = values["cell_values"]
            fields["cell_values"] = {k: CellValues.from_values(v) for k, v in columns.items()}
            fields["history"] = History.from_json(values["history"])
            fields["best"] = tuple(BestEpoch(**best) for best in values["best"])
            return cls(**fields)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise FileFormatError(
                f"Expected the state of a training run in {path}; {type(error).__name__}: {error}. "
                "Resume from another state, or delete this one to train anew."
            ) from error


def capture_state(trainer: pl.Trainer, plan: TrainingPlan) -> TrainingState:
    """State of a run between two epochs."""
    assert plan.split is not None
    return TrainingState(
        run_id=plan.run.run_id,
        identity=plan.run.identity,
        cell_values=dict(plan.run.cell_values),
        seed=plan.seed,
        first_epoch=plan.first_epoch,
        n_epochs=trainer.current_epoch,
        n_steps=plan.n_steps,
        n_cells_seen=plan.run.n_cells_seen,
        seconds=plan.run.seconds,
        split=plan.split,
        warmup=plan.warmup,
        history=plan.history,
        best=tuple(plan.run.best.values()),
        module={k: v.detach().cpu().clone() for k, v in plan.module.state_dict().items()},
        optimizers=[to_plain_state(o.state_dict(), "optimizer") for o in trainer.optimizers],
        schedules=[
            to_plain_state(c.scheduler.state_dict(), "schedule")
            for c in trainer.lr_scheduler_configs
        ],
        scaler=to_plain_state(trainer.precision_plugin.state_dict(), "precision"),
        callbacks={
            c.state_key: to_plain_state(state, c.state_key)
            for c in trainer.callbacks  # type: ignore[attr-defined]
            if (state := c.state_dict())
        },
        randomness=rng_states(),
    )


def to_plain_state(value: Any, where: str) -> Any:
    """Value as tensors, numbers, texts, lists and dictionaries; what is none of these is left out.

    Tuples become lists, arrays of NumPy tensors.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        kept = {k: to_plain_state(v, f"{where}.{k}") for k, v in value.items()}
        return {k: v for k, v in kept.items() if v is not OMITTED}
    if isinstance(value, list | tuple | set | frozenset):
        return [v for v in (to_plain_state(v, where) for v in value) if v is not OMITTED]
    if isinstance(value, int | float):  # such as an enum of numbers
        return value + 0
    logger.warning("Left '%s' out of the training state: it is a %s.", where, type(value).__name__)
    return OMITTED


OMITTED = object()


def rng_states() -> dict[str, Any]:
    """States of all global generators of random numbers."""
    numpy: Any = np.random.get_state()
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(numpy[1].astype(np.int64)), *numpy[2:4], float(numpy[4])],
        "python": [version, list(words), next_gauss],
    }


def restore_rng_states(states: Mapping[str, Any]) -> None:
    """Make all global generators go on from kept states."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, words, next_gauss = states["python"]
    random.setstate((version, tuple(words), next_gauss))


def restore_callbacks(trainer: pl.Trainer, state: TrainingState) -> None:
    """Give every callback its counters; what the user chose for this call stays."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        found = state.callbacks.get(callback.state_key)
        if found is None:
            continue
        # Lightning's own early stopping keeps its patience among the counters.
        patience = vars(callback).get("patience")
        callback.load_state_dict(found)
        if patience is not None:
            callback.patience = patience


def restore_optimizers(trainer: pl.Trainer, state: TrainingState) -> None:
    """Give optimizers, schedules and scaler their states, and set the counters of the loops.

    Raises
    ------
    ResumeError
        If there is another number of optimizers or schedules.
    """
    configs = trainer.lr_scheduler_configs
    for what, mine, kept in (
        ("optimizers", trainer.optimizers, state.optimizers),
        ("learning rate schedules", configs, state.schedules),
    ):
        if len(mine) != len(kept):
            raise ResumeError(
                f"Expected {len(kept)} {what}, as in the run to be resumed; got {len(mine)}."
            )
    for optimizer, values in zip(trainer.optimizers, state.optimizers, strict=True):
        optimizer.load_state_dict(values)
    for config, values in zip(configs, state.schedules, strict=True):
        config.scheduler.load_state_dict(values)
    trainer.precision_plugin.load_state_dict(state.scaler)
    restore_rng_states(state.randomness)


def advance_loops(trainer: pl.Trainer, n_epochs: int, n_steps: int) -> None:
    """Make a trainer count on from an epoch and an optimizer step."""
    loop = trainer.fit_loop
    for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
        progress.ready = progress.started = progress.processed = progress.completed = n_epochs  # type: ignore[attr-defined]
    steps = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
    for counter in (steps.current, steps.total):
        counter.ready = counter.completed = n_steps
    by_hand = loop.epoch_loop.manual_optimization.optim_step_progress
    for progress in (by_hand.current, by_hand.total):
        progress.ready = progress.completed = n_steps
    loop.epoch_loop._batches_that_stepped = n_steps

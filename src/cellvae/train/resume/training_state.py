"""State of a run after a whole epoch: everything that the next epoch depends on."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
from cellvae.train.records.jsonable import OMITTED, jsonable
from cellvae.train.records.run_state import BestEpoch


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """State of a run at the end of an epoch, from which it can be resumed.

    Parameters
    ----------
    run_id
        Name of the run.
    identity
        Model, data and hyperparameters of the run, as plain values.
    cell_values
        Values of each column that the run reads, by name.
    seed
        Seed of the run.
    first_epoch
        Number of its first epoch, counted over all runs of the model.
    n_epochs, n_steps
        Epochs completed and optimizer steps made in this run.
    n_cells_seen, seconds
        Training cells seen, and wall time so far.
    split
        Which cells are for training, validation and testing.
    warmup
        KL weight by epoch or step.
    history
        Metrics by epoch, of earlier runs too.
    best
        Best epochs that callbacks have found so far.
    module, optimizers, schedules, scaler, callbacks
        Their states.
    randomness
        States of the random generators of torch, NumPy and Python.
    step
        State of what the steps train beside the module; empty if that is nothing.
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
    step: dict[str, Any] = field(default_factory=dict)

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
            Result of :meth:`to_values`.
        path
            The file, for messages.

        Raises
        ------
        FileFormatError
            If they are not those of a state.
        """
        try:
            # States of version 0.1.0 have no `step`.
            values = {"step": {}, **values}
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
                "Resume from another state, or delete this one to train from scratch."
            ) from error


def capture_state(trainer: pl.Trainer, plan: TrainingPlan) -> TrainingState:
    """Capture the state of a run between two epochs."""
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
        optimizers=[plain_state(o.state_dict(), "optimizer") for o in trainer.optimizers],
        schedules=[
            plain_state(c.scheduler.state_dict(), "schedule") for c in trainer.lr_scheduler_configs
        ],
        scaler=plain_state(trainer.precision_plugin.state_dict(), "precision"),
        callbacks={
            c.state_key: plain_state(state, c.state_key)
            for c in trainer.callbacks  # type: ignore[attr-defined]
            if (state := c.state_dict())
        },
        randomness=rng_states(),
        step=plain_state(plan.step.state_dict(), "step"),
    )


def plain_state(state: Any, where: str) -> Any:
    """State as tensors, numbers, strings, lists and dictionaries; anything else is left out.

    Tuples and sets become lists, arrays of NumPy tensors.
    """
    sequences = (list, tuple, set, frozenset)
    return jsonable(state, plain_leaf, where=where, sequences=sequences, string_keys=False)


def plain_leaf(value: Any, where: str) -> Any:
    """Tensor, number or string from one value of a state; others are left out with a warning."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float):  # such as an enum of numbers
        return value + 0
    logger.warning("Left '%s' out of the training state: it is a %s.", where, type(value).__name__)
    return OMITTED


def rng_states() -> dict[str, Any]:
    """States of all global random generators."""
    numpy: Any = np.random.get_state()
    version, internal, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(numpy[1].astype(np.int64)), *numpy[2:4], float(numpy[4])],
        "python": [version, list(internal), next_gauss],
    }


def restore_rng_states(states: Mapping[str, Any]) -> None:
    """Set the states of all global random generators."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, next_gauss = states["python"]
    random.setstate((version, tuple(internal), next_gauss))


def restore_callbacks(trainer: pl.Trainer, state: TrainingState) -> None:
    """Restore the counters of every callback; options of this call of `train` stay."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        saved = state.callbacks.get(callback.state_key)
        if saved is None:
            continue
        # The state of Lightning's own early stopping contains its patience.
        patience = vars(callback).get("patience")
        callback.load_state_dict(saved)
        if patience is not None:
            callback.patience = patience


def restore_optimizers(trainer: pl.Trainer, state: TrainingState) -> None:
    """Restore optimizers, schedules, gradient scaler and random generators.

    Raises
    ------
    ResumeError
        If the number of optimizers or schedules differs, or the adversarial classifier does.
    """
    configs = trainer.lr_scheduler_configs
    for what, mine, saved in (
        ("optimizers", trainer.optimizers, state.optimizers),
        ("learning rate schedules", configs, state.schedules),
    ):
        if len(mine) != len(saved):
            raise ResumeError(
                f"Expected {len(saved)} {what}, as in the run to be resumed; got {len(mine)}."
            )
    for optimizer, values in zip(trainer.optimizers, state.optimizers, strict=True):
        optimizer.load_state_dict(values)
    for config, values in zip(configs, state.schedules, strict=True):
        config.scheduler.load_state_dict(values)
    plan = trainer.lightning_module
    if isinstance(plan, TrainingPlan):
        if not plan.step.can_load(state.step):
            raise ResumeError(
                "Expected the adversarial classifier of the run to be resumed; got another one, or "
                "none. Give adversarial_classifier as the run had it."
            )
        plan.step.load_state_dict(state.step)
        # Once more, since they may have been rounded before Lightning changed their precision.
        plan.module.load_state_dict(state.module)
    trainer.precision_plugin.load_state_dict(state.scaler)
    restore_rng_states(state.randomness)


def advance_loops(trainer: pl.Trainer, n_epochs: int, n_steps: int) -> None:
    """Set the counters of a trainer to an epoch and an optimizer step."""
    loop = trainer.fit_loop
    for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
        progress.ready = progress.started = progress.processed = progress.completed = n_epochs  # type: ignore[attr-defined]
    steps = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
    for counter in (steps.current, steps.total):
        counter.ready = counter.completed = n_steps
    manual = loop.epoch_loop.manual_optimization.optim_step_progress
    for progress in (manual.current, manual.total):
        progress.ready = progress.completed = n_steps
    loop.epoch_loop._batches_that_stepped = n_steps

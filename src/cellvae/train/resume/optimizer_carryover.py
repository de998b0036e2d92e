"""Optimizers and schedules that one run of a model passes on to the next."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl

from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
    PlateauOptions,
)


@dataclass(frozen=True, kw_only=True)
class OptimizerCarryover:
    """State of optimizers and schedules at the end of a run.

    Parameters
    ----------
    seed
        Seed of the run.
    n_steps
        Optimizer steps of all runs.
    optimizer, plateau
        Options of the optimizers and the schedule.
    optimizers, schedules
        Their states.
    step
        State of what the steps trained beside the module.
    """

    seed: int
    n_steps: int
    optimizer: OptimizerOptions
    plateau: PlateauOptions | None
    optimizers: list[dict[str, Any]]
    schedules: list[dict[str, Any]]
    step: dict[str, Any]

    def restore(self, trainer: pl.Trainer) -> None:
        """Continue the optimizers of the last run in a new one.

        Moments are restored if the optimizers have the same class and parameters; learning rates
        and schedules only if their options are the same too.
        """
        plan = trainer.lightning_module
        assert isinstance(plan, TrainingPlan)
        if self.step and plan.step.can_load(self.step):
            plan.step.load_state_dict(self.step)
        options = plan.optimizer_options
        same_class = (
            options.optimizer,
            options.optimizer_creator,
            options.update_only_decoder,
        ) == (
            self.optimizer.optimizer,
            self.optimizer.optimizer_creator,
            self.optimizer.update_only_decoder,
        )
        if not same_class or len(trainer.optimizers) != len(self.optimizers):
            return
        for optimizer, saved in zip(trainer.optimizers, self.optimizers, strict=True):
            state = copy.deepcopy(saved)
            if options != self.optimizer:
                state["param_groups"] = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict(state)
        configs = trainer.lr_scheduler_configs
        if plan.plateau_options == self.plateau and len(configs) == len(self.schedules):
            for config, schedule in zip(configs, self.schedules, strict=True):
                config.scheduler.load_state_dict(schedule)


def make_carryover(trainer: pl.Trainer, plan: TrainingPlan) -> OptimizerCarryover | None:
    """Copy the optimizers of a run for the next; None if something was not finite."""
    if plan.run.nan_event is not None:
        return None
    return OptimizerCarryover(
        seed=plan.seed,
        n_steps=plan.first_step + plan.n_steps,
        optimizer=plan.optimizer_options,
        plateau=plan.plateau_options,
        optimizers=[copy.deepcopy(o.state_dict()) for o in trainer.optimizers],
        step=plan.step.state_dict(),
        schedules=[copy.deepcopy(c.scheduler.state_dict()) for c in trainer.lr_scheduler_configs],
    )

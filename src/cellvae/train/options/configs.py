"""Words of training as objects, as scvi-tools has them; a dictionary does as well."""

from __future__ import annotations

from typing import Any


class TrainingPlanConfig(dict[str, Any]):
    """Words of `plan_kwargs`: `model.train(plan_config=TrainingPlanConfig(lr=1e-3))`.

    They are checked when training is called; words of `plan_kwargs` come before them.
    """


class PyroTrainingPlanConfig(TrainingPlanConfig):
    """Words of `plan_kwargs` of a model in Pyro."""


class SemiSupervisedTrainingPlanConfig(TrainingPlanConfig):
    """Words of `plan_kwargs` of a model that learns labels."""


class TrainerConfig(dict[str, Any]):
    """Words of `train` and of Lightning: `model.train(trainer_config=TrainerConfig(...))`.

    They are checked when training is called; words given to `train` come before them.
    """

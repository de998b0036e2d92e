"""Table of the arguments of `train`: the option that each sets, its default and description."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cellvae.train.options.adversarial_options import AdversarialOptions
from cellvae.train.options.kwarg_names import (
    ADVERSARIAL_KWARGS,
    EARLY_STOPPING_KWARGS,
    LABEL_KWARGS,
    OPTIMIZER_KWARGS,
    PLATEAU_KWARGS,
    PROGRESS_KWARGS,
    RUN_KWARGS,
    SPLIT_KWARGS,
    WARMUP_KWARGS,
)
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
    PlateauOptions,
    WarmupOptions,
)
from cellvae.train.options.train_options import (
    CompileOptions,
    EarlyStoppingOptions,
    LoaderOptions,
    ProgressOptions,
    SplitOptions,
    TrainOptions,
)

Place = Literal["train", "plan_kwargs", "datasplitter_kwargs"]
Topic = Literal["training", "optimizer", "early stopping", "progress"]


@dataclass(frozen=True, kw_only=True)
class TrainOption:
    """One argument of `train`.

    Parameters
    ----------
    name
        Its name.
    place
        Where it is given: to `train` itself, or in one of its dictionaries.
    topic
        What it is about.
    options, field
        Dataclass with its annotation, default and description, and its name there; None for an
        argument that switches options on and has the type bool or float.
    kind, help
        Type and description of such an argument.
    default
        Its default.
    """

    name: str
    place: Place
    topic: Topic
    options: type | None = None
    field: str = ""
    kind: type = bool
    help: str = ""
    default: Any = None


def train_option_table(
    loss_weights: Mapping[str, float] | None = None, *, learns_labels: bool = False
) -> tuple[TrainOption, ...]:
    """Every argument of `train` that is a plain value.

    Parameters
    ----------
    loss_weights
        Default weights of terms of the model's loss, which are arguments of `plan_kwargs`.
    learns_labels
        Whether the model learns from labels, and so has `n_samples_per_label`.
    """
    rows = [
        *field_options("train", "training", TrainOptions, {name: name for name in RUN_KWARGS}),
        *field_options(
            "train", "training", SplitOptions, {name: name for name in SPLIT_KWARGS[:3]}
        ),
        *field_options("train", "training", LoaderOptions, {"batch_size": "batch_size"}),
        *field_options(
            "datasplitter_kwargs", "training", LoaderOptions, {"drop_last": "drop_last"}
        ),
        *field_options("datasplitter_kwargs", "training", LoaderOptions, {"shuffle": "shuffle"}),
        *field_options(
            "plan_kwargs", "optimizer", OptimizerOptions, {w: w for w in OPTIMIZER_KWARGS}
        ),
        *field_options("plan_kwargs", "optimizer", WarmupOptions, WARMUP_KWARGS),
        *switch_options(),
        *field_options("plan_kwargs", "optimizer", PlateauOptions, PLATEAU_KWARGS),
        *field_options("plan_kwargs", "optimizer", AdversarialOptions, ADVERSARIAL_KWARGS),
        *field_options("plan_kwargs", "progress", TrainOptions, {"on_step": "log_steps"}),
        *field_options(
            "train", "training", TrainOptions, {"checkpointing_monitor": "checkpoint_monitor"}
        ),
        *field_options("plan_kwargs", "optimizer", CompileOptions, {"compile": "enabled"}),
        *field_options("train", "early stopping", EarlyStoppingOptions, EARLY_STOPPING_KWARGS),
        *field_options("train", "progress", ProgressOptions, PROGRESS_KWARGS),
    ]
    if learns_labels:
        rows += field_options(
            "train", "training", LoaderOptions, {name: name for name in LABEL_KWARGS}
        )
    rows += [
        TrainOption(
            name=name,
            place="plan_kwargs",
            topic="optimizer",
            kind=float,
            default=weight,
            help=f"Weight of a part of the loss ({name}).",
        )
        for name, weight in (loss_weights or {}).items()
    ]
    return tuple(rows)


def field_options(
    place: Place, topic: Topic, options: type, names: Mapping[str, str]
) -> list[TrainOption]:
    """Arguments for fields of a dataclass, by the names that they have there."""
    fields = {field.name: field for field in dataclasses.fields(options)}
    return [
        TrainOption(
            name=argument,
            place=place,
            topic=topic,
            options=options,
            field=name,
            default=fields[name].default,
        )
        for argument, name in names.items()
    ]


def switch_options() -> list[TrainOption]:
    """Arguments that switch other options on, and have no field of their own."""
    return [
        TrainOption(
            name="early_stopping",
            place="train",
            topic="early stopping",
            default=False,
            help="Stop when validation no longer improves, and keep the best model. Any option of "
            "early stopping turns it on.",
        ),
        TrainOption(
            name="reduce_lr_on_plateau",
            place="plan_kwargs",
            topic="optimizer",
            default=False,
            help="Lower the learning rate when a metric of validation stops improving.",
        ),
        TrainOption(
            name="enable_checkpointing",
            place="train",
            topic="training",
            default=False,
            help="Keep the best model in a checkpoint; early stopping does so by itself.",
        ),
        TrainOption(
            name="kl_weight",
            place="plan_kwargs",
            topic="optimizer",
            kind=float,
            help="Fixed weight of the KL term, in place of a warm-up.",
        ),
    ]

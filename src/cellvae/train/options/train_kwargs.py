"""Keyword arguments of `train`, parsed into options and callbacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellvae.core.options import check_kwargs, check_value, from_kwargs
from cellvae.errors import InvalidOptionError, UnknownOptionError
from cellvae.train.options.adversarial_options import AdversarialOptions
from cellvae.train.options.callback_kwargs import as_callbacks, callbacks_from_mapping
from cellvae.train.options.kwarg_names import (
    ADVERSARIAL_KWARGS,
    EARLY_STOPPING_KWARGS,
    IGNORED_LOADER_KWARGS,
    LABEL_KWARGS,
    LOADER_KWARGS,
    MOVED_KWARGS,
    OPTIMIZER_KWARGS,
    OTHER_KWARGS,
    OTHER_PLAN_KWARGS,
    PLATEAU_KWARGS,
    PROGRESS_KWARGS,
    RUN_KWARGS,
    SPLIT_KWARGS,
    TOP_LEVEL_PLAN_KWARGS,
    WARMUP_KWARGS,
)
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
    PlateauOptions,
    WarmupOptions,
)
from cellvae.train.options.process_count import count_processes
from cellvae.train.options.train_options import (
    CompileOptions,
    EarlyStoppingOptions,
    LoaderOptions,
    ProgressOptions,
    SplitOptions,
    TrainOptions,
)
from cellvae.train.options.trainer_kwargs import (
    lightning_trainer_kwargs,
    parse_trainer,
    with_resume,
)


@dataclass(frozen=True, kw_only=True)
class ParsedTrainKwargs:
    """Options and callbacks of a call of `train`."""

    options: TrainOptions
    callbacks: tuple[Any, ...]


def parse_train_kwargs(
    kwargs: Mapping[str, Any],
    *,
    progress_default: bool = True,
    loss_weights: Collection[str] = (),
    learns_labels: bool = False,
) -> ParsedTrainKwargs:
    """Options and callbacks from the keyword arguments of `train`; defaults for those left out.

    Arguments of `train` have precedence over `trainer_config`, `plan_kwargs` over `plan_config`.

    Parameters
    ----------
    kwargs
        Keyword arguments of `train`.
    progress_default
        Whether progress is shown by default.
    loss_weights
        Names in `plan_kwargs` that are weights of terms of the model's loss.
    learns_labels
        Whether the model learns from labels, which allows `n_samples_per_label`.

    Raises
    ------
    UnknownOptionError
        If an argument is misspelt or unknown, also in a dictionary; with the closest name.
    InvalidOptionError
        If a value does not fit its argument.
    """
    given = {**to_kwargs(kwargs.get("trainer_config"), "trainer_config"), **kwargs}
    for name, advice in MOVED_KWARGS.items():
        if name in given:
            raise UnknownOptionError(f"train() has no option '{name}'. {advice}")
    given = with_resume(given)
    plan = {
        **to_kwargs(given.get("plan_config"), "plan_config"),
        **to_kwargs(given.get("plan_kwargs"), "plan_kwargs"),
        **select_kwargs(given, TOP_LEVEL_PLAN_KWARGS),
    }
    split = to_kwargs(given.get("datasplitter_kwargs"), "datasplitter_kwargs")
    check_kwarg_names(given, plan, split, loss_weights=loss_weights, learns_labels=learns_labels)
    callbacks, disabled = callbacks_from_mapping(given.get("callbacks"))
    options = make_train_options(
        given,
        plan,
        split,
        progress_default=progress_default,
        loss_weights=loss_weights,
        disabled_callbacks=disabled,
    )
    early = given.get("early_stopping")
    if early is not None and not isinstance(early, bool | str):
        callbacks = (*as_callbacks(early), *callbacks)
    return ParsedTrainKwargs(options=options, callbacks=callbacks)


def check_kwarg_names(
    given: Mapping[str, Any],
    plan: Mapping[str, Any],
    split: Mapping[str, Any],
    *,
    loss_weights: Collection[str],
    learns_labels: bool,
) -> None:
    """Check names of arguments of `train`, `plan_kwargs` and `datasplitter_kwargs`.

    Raises
    ------
    UnknownOptionError
        For the first that is unknown.
    """
    check_kwargs(given, train_kwarg_names(learns_labels=learns_labels), "train()")
    check_kwargs(
        plan,
        {
            *OPTIMIZER_KWARGS,
            *PLATEAU_KWARGS,
            *WARMUP_KWARGS,
            *ADVERSARIAL_KWARGS,
            *OTHER_PLAN_KWARGS,
            *loss_weights,
        },
        "plan_kwargs",
    )
    check_kwargs(
        split, {*SPLIT_KWARGS, *LOADER_KWARGS, *IGNORED_LOADER_KWARGS}, "datasplitter_kwargs"
    )


def train_kwarg_names(*, learns_labels: bool) -> set[str]:
    """Names of all keyword arguments of `train`.

    Parameters
    ----------
    learns_labels
        Whether the model learns from labels.
    """
    return {
        *lightning_trainer_kwargs(),
        *SPLIT_KWARGS,
        *EARLY_STOPPING_KWARGS,
        *PROGRESS_KWARGS,
        *RUN_KWARGS,
        *OTHER_KWARGS,
        "batch_size",
        "batch_size_per_device",
        *TOP_LEVEL_PLAN_KWARGS,
        *(LABEL_KWARGS if learns_labels else ()),
    }


def make_train_options(
    given: Mapping[str, Any],
    plan: Mapping[str, Any],
    split: Mapping[str, Any],
    *,
    progress_default: bool,
    loss_weights: Collection[str],
    disabled_callbacks: tuple[str, ...],
) -> TrainOptions:
    """Options of a run from the arguments of `train` and of its two dictionaries.

    Raises
    ------
    InvalidOptionError
        If a value does not fit, also of an option of what is switched off.
    """
    checkpoint = parse_bool(given, "enable_checkpointing", default="checkpointing_monitor" in given)
    monitor = given.get("checkpointing_monitor", "elbo_validation")
    check_value("checkpointing_monitor", monitor, str | None)
    plateau = rename_kwargs(PlateauOptions, plan, PLATEAU_KWARGS)
    compile_kwargs = plan.get("compile_kwargs") or {}
    check_value("compile_kwargs", compile_kwargs, Mapping[str, Any])
    split_kwargs = select_kwargs({**given, **split}, SPLIT_KWARGS)
    loader_kwargs = select_kwargs({**given, **split}, (*LOADER_KWARGS, *LABEL_KWARGS))
    optimizer_kwargs = select_kwargs(plan, OPTIMIZER_KWARGS)
    return TrainOptions(
        **select_kwargs(given, RUN_KWARGS),
        disabled_callbacks=disabled_callbacks,
        log_steps=parse_bool(plan, "on_step"),
        checkpoint_monitor=monitor if checkpoint else None,
        split=from_kwargs(SplitOptions, split_kwargs, "train()"),
        loader=total_batch_size(from_kwargs(LoaderOptions, loader_kwargs, "train()"), given),
        optimizer=from_kwargs(OptimizerOptions, optimizer_kwargs, "plan_kwargs"),
        loss_weights={
            name: check_value(name, plan[name], float, {"at_least": 0})
            for name in loss_weights
            if name in plan
        },
        warmup=parse_warmup(plan),
        plateau=plateau if parse_bool(plan, "reduce_lr_on_plateau") else None,
        adversarial=rename_kwargs(AdversarialOptions, plan, ADVERSARIAL_KWARGS),
        early_stopping=parse_early_stopping(given),
        progress=rename_kwargs(
            ProgressOptions, {"enable_progress_bar": progress_default, **given}, PROGRESS_KWARGS
        ),
        compile=CompileOptions(enabled=parse_bool(plan, "compile"), arguments=compile_kwargs),
        trainer=parse_trainer(given, lightning_trainer_kwargs()),
    )


def total_batch_size(loader: LoaderOptions, given: Mapping[str, Any]) -> LoaderOptions:
    """Options of batches whose `batch_size` is that of all devices together."""
    if loader.batch_size_per_device is None:
        return loader
    n_processes = count_processes(given.get("devices", "auto"), given.get("num_nodes", 1))
    return dataclasses.replace(loader, batch_size=loader.batch_size_per_device * n_processes)


def select_kwargs(kwargs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the keyword arguments that have one of the names."""
    return {name: kwargs[name] for name in names if name in kwargs}


def parse_bool(kwargs: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """Value of an argument that is True or False."""
    return bool(check_value(name, kwargs.get(name, default), bool | None))


def rename_kwargs(cls: Any, kwargs: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """Options of a class from arguments, by a table from their names to fields.

    Raises
    ------
    InvalidOptionError
        If a value does not fit; the message has the name of the argument.
    """
    try:
        return cls(**{field: kwargs[name] for name, field in names.items() if name in kwargs})
    except InvalidOptionError as error:
        text = str(error)
        for name, field in names.items():
            text = text.replace(f"Expected {field} to be", f"Expected {name} to be")
        raise InvalidOptionError(text) from None


def to_kwargs(value: Any, name: str) -> dict[str, Any]:
    """Keyword arguments from a dictionary, or from the fields of a dataclass that are not None.

    Raises
    ------
    InvalidOptionError
        If it is neither.
    """
    if value is None:
        return {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {k: v for k, v in values.items() if v is not None}
    if isinstance(value, Mapping):
        return dict(value)
    raise InvalidOptionError(f"Expected {name} to be a dictionary of options; got {value!r}.")


def parse_warmup(plan: Mapping[str, Any]) -> WarmupOptions:
    """Warm-up of the KL weight; with `kl_weight`, a warm-up of constant weight."""
    warmup = rename_kwargs(WarmupOptions, plan, WARMUP_KWARGS)
    if "kl_weight" not in plan:
        return warmup
    kl_weight = check_value("kl_weight", plan["kl_weight"], float, {"at_least": 0})
    return WarmupOptions(n_epochs=None, maximum=kl_weight)


def parse_early_stopping(kwargs: Mapping[str, Any]) -> EarlyStoppingOptions | None:
    """Early stopping, if requested by True, by a metric or by any of its options."""
    requested = kwargs.get("early_stopping")
    if requested is None:
        requested = any(name in kwargs for name in EARLY_STOPPING_KWARGS)
    if isinstance(requested, str):
        kwargs = {"early_stopping_monitor": requested, **kwargs}
    elif not isinstance(requested, bool):
        return None
    options = rename_kwargs(EarlyStoppingOptions, kwargs, EARLY_STOPPING_KWARGS)
    return options if requested else None

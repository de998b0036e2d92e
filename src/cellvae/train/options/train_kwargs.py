"""What the user typed becomes options: the only place that knows the words of `train`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellvae.core.options import check_kwargs, check_value, from_kwargs
from cellvae.errors import InvalidOptionError, UnknownOptionError, did_you_mean
from cellvae.train.options.train_options import (
    CompileOptions,
    EarlyStoppingOptions,
    LoaderOptions,
    OptimizerOptions,
    PlateauOptions,
    ProgressOptions,
    SplitOptions,
    TrainOptions,
    WarmupOptions,
)

# Words of plan_kwargs: those handed on by their own name, and the names of the others.
OPTIMIZER_KWARGS = (
    "optimizer",
    "optimizer_creator",
    "lr",
    "weight_decay",
    "eps",
    "update_only_decoder",
    "fused_optimizer",
)
PLATEAU_KWARGS = {
    "lr_factor": "factor",
    "lr_patience": "patience",
    "lr_threshold": "threshold",
    "lr_scheduler_metric": "metric",
    "lr_min": "minimum",
}
WARMUP_KWARGS = {
    "n_epochs_kl_warmup": "n_epochs",
    "n_steps_kl_warmup": "n_steps",
    "min_kl_weight": "minimum",
    "max_kl_weight": "maximum",
}
OTHER_PLAN_KWARGS = (
    "reduce_lr_on_plateau",
    "compile",
    "compile_kwargs",
    "on_step",
    "on_epoch",
    "kl_weight",
)
SPLIT_KWARGS = ("train_size", "validation_size", "shuffle_set_split", "external_indexing")
LOADER_KWARGS = ("batch_size", "shuffle", "drop_last", "num_workers")
# Words of plan_kwargs that can be given to train() too, as some models of scvi-tools have them.
TOP_LEVEL_PLAN_KWARGS = (
    "lr",
    "weight_decay",
    "eps",
    "n_epochs_kl_warmup",
    "n_steps_kl_warmup",
    "reduce_lr_on_plateau",
)
LABEL_KWARGS = ("n_samples_per_label",)
# Loader words of scvi-tools with nothing to act on here: there are no worker processes.
IGNORED_LOADER_KWARGS = (
    "pin_memory",
    "persistent_workers",
    "load_sparse_tensor",
    "drop_dataset_tail",
    "prefetch_factor",
)
UNSUPPORTED_PRECISION = ("bf16-true", "16-true", "transformer-engine", "transformer-engine-float16")
"""Values of Lightning's `precision` that hold weights and counts in half precision or less."""
EARLY_STOPPING_KWARGS = {
    f"early_stopping_{field.name}": field.name for field in dataclasses.fields(EarlyStoppingOptions)
}
PROGRESS_KWARGS = {
    "enable_progress_bar": "enabled",
    "progress_bar_refresh_rate": "refresh_rate",
    "simple_progress_bar": "simple",
}
RUN_KWARGS = (
    "max_epochs",
    "seed",
    "accelerator",
    "devices",
    "check_val_every_n_epoch",
    "learning_rate_monitor",
    "accumulate",
    "lr_schedule",
    "on_nan",
    "on_interrupt",
    "resume",
    "run_dir",
    "reset",
    "steps_per_block",
    "capture_steps",
    "placement",
)
OTHER_KWARGS = (
    *(
        "early_stopping",
        "enable_checkpointing",
        "checkpointing_monitor",
        "callbacks",
        "load_sparse_tensor",
    ),
    *("plan_kwargs", "plan_config", "datasplitter_kwargs", "trainer_config", "log_save_dir"),
)


# Callbacks of a run that nobody asked for, by the names by which they can be left out.
DEFAULT_CALLBACK_NAMES = (
    "nan_guard",
    "progress",
    "learning_rate",
    "training_checkpoint",
    "run_logger",
)


# Words of scvi-tools and Lightning with another name here.
MOVED_KWARGS = {
    "use_gpu": "Use accelerator='gpu' or accelerator='cpu'.",
    "check_nan_gradients": "Every run looks for them: see on_nan.",
    "save_checkpoint": "Use enable_checkpointing=True, or callbacks=[SaveCheckpoint(...)].",
}


@dataclass(frozen=True, kw_only=True)
class ParsedTrainKwargs:
    """What a call of `train` asked for."""

    options: TrainOptions
    callbacks: tuple[Any, ...]


def parse_train_kwargs(
    words: Mapping[str, Any],
    *,
    progress_default: bool = True,
    loss_weights: Collection[str] = (),
    learns_labels: bool = False,
) -> ParsedTrainKwargs:
    """Options and callbacks from the keywords of `train`; those left out take their defaults.

    A word given to `train` goes before the same word in `trainer_config` or `plan_config`.

    Parameters
    ----------
    words
        What was given.
    progress_default
        Whether progress is shown where nothing is said.
    loss_weights
        Words of `plan_kwargs` that weigh parts of the model's loss.
    learns_labels
        Whether the model learns from labels, and so has `n_samples_per_label`.

    Raises
    ------
    UnknownOptionError
        If a keyword is misspelt or unknown, at any depth, with the closest name.
    InvalidOptionError
        If a value is not one that the keyword can take.
    """
    given = {**to_kwargs(words.get("trainer_config"), "trainer_config"), **words}
    for word, instead in MOVED_KWARGS.items():
        if word in given:
            raise UnknownOptionError(f"train() has no option '{word}'. {instead}")
    given = with_resume(given)
    trainer_words = lightning_trainer_kwargs()
    check_kwargs(
        given,
        {
            *(
                *SPLIT_KWARGS[:3],
                *EARLY_STOPPING_KWARGS,
                *PROGRESS_KWARGS,
                *RUN_KWARGS,
                *OTHER_KWARGS,
                "batch_size",
                *TOP_LEVEL_PLAN_KWARGS,
                *(LABEL_KWARGS if learns_labels else ()),
            ),
            *trainer_words,
        },
        "train()",
    )
    plan = {
        **to_kwargs(given.get("plan_config"), "plan_config"),
        **to_kwargs(given.get("plan_kwargs"), "plan_kwargs"),
        **select_kwargs(given, TOP_LEVEL_PLAN_KWARGS),
    }
    split = to_kwargs(given.get("datasplitter_kwargs"), "datasplitter_kwargs")
    check_kwargs(
        plan,
        {*OPTIMIZER_KWARGS, *PLATEAU_KWARGS, *WARMUP_KWARGS, *OTHER_PLAN_KWARGS, *loss_weights},
        "plan_kwargs",
    )
    check_kwargs(
        split, {*SPLIT_KWARGS, *LOADER_KWARGS, *IGNORED_LOADER_KWARGS}, "datasplitter_kwargs"
    )
    taken = {**given, **split}
    checkpoint = parse_bool(given, "enable_checkpointing", default="checkpointing_monitor" in given)
    monitor = check_value(
        "checkpointing_monitor", given.get("checkpointing_monitor", "elbo_validation"), str | None
    )
    # Options of what is off are checked too.
    plateau = rename_kwargs(PlateauOptions, plan, PLATEAU_KWARGS)
    options = TrainOptions(
        **select_kwargs(given, RUN_KWARGS),
        log_steps=parse_bool(plan, "on_step"),
        checkpoint_monitor=monitor if checkpoint else None,
        split=from_kwargs(SplitOptions, select_kwargs(taken, SPLIT_KWARGS), "train()"),
        loader=from_kwargs(
            LoaderOptions, select_kwargs(taken, (*LOADER_KWARGS, *LABEL_KWARGS)), "train()"
        ),
        optimizer=from_kwargs(
            OptimizerOptions, select_kwargs(plan, OPTIMIZER_KWARGS), "plan_kwargs"
        ),
        loss_weights={
            word: check_value(word, plan[word], float, {"at_least": 0})
            for word in loss_weights
            if word in plan
        },
        warmup=parse_warmup(plan),
        plateau=plateau if parse_bool(plan, "reduce_lr_on_plateau") else None,
        early_stopping=parse_early_stopping(given),
        progress=rename_kwargs(
            ProgressOptions, {"enable_progress_bar": progress_default, **given}, PROGRESS_KWARGS
        ),
        compile=CompileOptions(
            enabled=parse_bool(plan, "compile"),
            arguments=check_value(
                "compile_kwargs", plan.get("compile_kwargs") or {}, Mapping[str, Any]
            ),
        ),
        trainer=parse_trainer(given, trainer_words),
    )
    callbacks, without = callbacks_from_mapping(given.get("callbacks"))
    options = dataclasses.replace(options, disabled_callbacks=without)
    early = given.get("early_stopping")
    if early is not None and not isinstance(early, bool | str):
        callbacks = (*as_callbacks(early), *callbacks)
    return ParsedTrainKwargs(options=options, callbacks=callbacks)


def with_resume(given: Mapping[str, Any]) -> dict[str, Any]:
    """Words with `resume` in place of Lightning's `ckpt_path`.

    Raises
    ------
    InvalidOptionError
        If both are given, or `ckpt_path` is one of Lightning's names without a state here.
    """
    words = dict(given)
    path = words.pop("ckpt_path", None)
    if path is None:
        return words
    if words.get("resume"):
        raise InvalidOptionError("Expected resume or ckpt_path, which mean the same; got both.")
    if not isinstance(path, str | Path) or path in ("best", "hpc", "registry"):
        raise InvalidOptionError(
            f"Expected ckpt_path to be the state of a run, a folder with one, or 'last'; got "
            f"{path!r}. States are in run_dir/state; 'last' is the newest of them, if there is one."
        )
    return words | {"resume": "auto" if path == "last" else path}


def select_kwargs(words: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The words of these names that were given."""
    return {name: words[name] for name in names if name in words}


def parse_bool(words: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """A word that is True or False."""
    return bool(check_value(name, words.get(name, default), bool | None))


def rename_kwargs(cls: Any, words: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """Options of a class from words that have other names there."""
    try:
        return cls(**{field: words[word] for word, field in names.items() if word in words})
    except InvalidOptionError as error:
        text = str(error)
        for word, field in names.items():
            text = text.replace(f"Expected {field} to be", f"Expected {word} to be")
        raise InvalidOptionError(text) from None


def to_kwargs(value: Any, name: str) -> dict[str, Any]:
    """Words of a dictionary or of a dataclass (what is None there was not given).

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
    """Warm-up of the KL weight; a fixed `kl_weight` is a warm-up that has ended."""
    warmup = rename_kwargs(WarmupOptions, plan, WARMUP_KWARGS)
    if "kl_weight" not in plan:
        return warmup
    kl_weight = check_value("kl_weight", plan["kl_weight"], float, {"at_least": 0})
    return WarmupOptions(n_epochs=None, maximum=kl_weight)


def parse_early_stopping(words: Mapping[str, Any]) -> EarlyStoppingOptions | None:
    """Early stopping where it was asked for: by True, by a metric, or by any of its options."""
    asked = words.get("early_stopping")
    if asked is None:
        asked = any(word in words for word in EARLY_STOPPING_KWARGS)
    if isinstance(asked, str):
        words = {"early_stopping_monitor": asked, **words}
    elif not isinstance(asked, bool):
        return None
    options = rename_kwargs(EarlyStoppingOptions, words, EARLY_STOPPING_KWARGS)
    return options if asked else None


def parse_trainer(words: Mapping[str, Any], trainer_words: frozenset[str]) -> dict[str, Any]:
    """Arguments that go to Lightning's trainer as they are.

    Raises
    ------
    InvalidOptionError
        If the precision is one in which counts and weights would lose their digits, or gradients
        are to be added up over something else than a number of batches.
    """
    if words.get("precision") in UNSUPPORTED_PRECISION:
        raise InvalidOptionError(
            "Expected a precision that keeps weights and counts in single precision at least; got "
            f"{words['precision']!r}: sums of counts have more digits than it holds. Use "
            "'bf16-mixed' or '16-mixed', which compute in half precision what allows it."
        )
    ours = {*RUN_KWARGS, *PROGRESS_KWARGS, "enable_checkpointing", "callbacks"}
    arguments = {k: v for k, v in words.items() if k in trainer_words and k not in ours}
    if arguments.get("accumulate_grad_batches") is not None:
        name, value = "accumulate_grad_batches", arguments["accumulate_grad_batches"]
        if isinstance(value, Mapping):
            raise InvalidOptionError(
                f"Expected {name} to be a whole number; got {value!r}. Numbers by epoch are given "
                "with accumulate={epoch: batches}."
            )
        arguments[name] = check_value(name, value, int, {"at_least": 1})
    if words.get("log_save_dir") is not None:
        arguments.setdefault("default_root_dir", words["log_save_dir"])
    return arguments


def lightning_trainer_kwargs() -> frozenset[str]:
    """Arguments that Lightning's trainer has."""
    import lightning.pytorch as pl

    return frozenset(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}


def callbacks_from_mapping(callbacks: Any) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Callbacks, and names of default callbacks that a dictionary sets to None or False.

    Raises
    ------
    InvalidOptionError
        If a name is not that of a default callback, or a value is no callback.
    """
    if not isinstance(callbacks, Mapping):
        return as_callbacks(callbacks), ()
    without = tuple(name for name, c in callbacks.items() if c is None or c is False)
    for name in without:
        if name not in DEFAULT_CALLBACK_NAMES:
            raise InvalidOptionError(
                f"Expected the name of a default callback to leave out; got '{name}'."
                f"{did_you_mean(name, DEFAULT_CALLBACK_NAMES)} They are: "
                f"{', '.join(DEFAULT_CALLBACK_NAMES)}."
            )
    return as_callbacks([c for name, c in callbacks.items() if name not in without]), without


def as_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """Callbacks as a tuple of our own, from one, a sequence, or none.

    Raises
    ------
    InvalidOptionError
        If one of them is no callback.
    """
    import lightning.pytorch as pl

    if callbacks is None:
        return ()
    found = tuple(callbacks) if isinstance(callbacks, list | tuple) else (callbacks,)
    for callback in found:
        if not isinstance(callback, pl.Callback):
            made = f" Did you mean {callback.__name__}()?" if isinstance(callback, type) else ""
            raise InvalidOptionError(
                f"Expected callbacks to be Lightning callbacks; got {callback!r}.{made}"
            )
    return found

"""Names of metrics of training, and the direction in which each improves."""

from __future__ import annotations

import re
from collections.abc import Collection
from types import MappingProxyType
from typing import Literal

from cellvae.core.log import warn
from cellvae.errors import InvalidOptionError, TrainingWarning, did_you_mean

Split = Literal["train", "validation"]
Mode = Literal["min", "max"]

LOSS_PARTS = ("elbo", "reconstruction_loss", "kl_local", "kl_global")
LOWER_IS_BETTER = (
    *("loss", "elbo", "kl", "kld", "reconstruction", "perplexity", "error", "mmd", "nll"),
    *("mse", "rmse", "mae", "bce", "divergence", "discrepancy", "deviance", "brier", "bouldin"),
)
HIGHER_IS_BETTER = (
    *("accuracy", "acc", "f1", "auc", "auroc", "auprc", "recall", "precision", "mcc", "jaccard"),
    *("asw", "silhouette", "lisi", "ilisi", "clisi", "kbet", "nmi", "ari", "purity"),
    *("conn", "connectivity", "pcr", "map", "mrr", "ndcg", "dcg", "hit", "likelihood", "r2"),
    *("correlation", "pearson", "spearman", "isolated", "bras"),
)
DIRECTIONS: MappingProxyType[str, Mode] = MappingProxyType(
    {**dict.fromkeys(LOWER_IS_BETTER, "min"), **dict.fromkeys(HIGHER_IS_BETTER, "max")}
)
"""Direction in which a metric improves, by a token of its name."""

AGGREGATES = ("total", "batch correction", "bio conservation")
"""Means of scores, all of which improve by rising, as scib-metrics and `ScibCallback` call them."""

# What a split is called in the names of other packages.
SPLIT_NAMES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training"),
        "validation": ("validation", "val", "valid", "eval"),
        "test": ("test",),
    }
)


def metric_names(
    split: Split, extra: Collection[str] = (), loss_parts: Collection[str] = ()
) -> list[str]:
    """Names of everything that a plan measures on one split.

    Parameters
    ----------
    split
        Which cells are measured.
    extra
        `extra_metric_names` of the module.
    loss_parts
        `loss_parts` of the module.
    """
    return [
        *(f"{part}_{split}" for part in (*LOSS_PARTS, *loss_parts)),
        f"{split}_loss",
        *(f"{split}_{name}" for name in extra),
    ]


def name_tokens(name: str) -> list[str]:
    """Tokens of the name of a metric, in lower case, without a count: `recall@20` is `recall`."""
    return [token for token in re.split(r"[^a-z0-9]+", name.lower()) if token]


def is_validation(name: str) -> bool:
    """Whether a metric is measured on validation cells, by its name."""
    tokens = name.lower().replace("/", "_").split("_")
    return "validation" in tokens or "val" in tokens


def metric_direction(name: str) -> Mode | None:
    """Direction in which a metric improves, by the tokens of its name; None if unknown.

    Whole tokens count, never a part of one. The last that is known decides, so that an
    `accuracy_loss` is a loss; `score` counts only where no other token is known.
    """
    if name.lower().rpartition("/")[2] in AGGREGATES:
        return "max"
    tokens = name_tokens(name)
    if not tokens or tokens[-1] == "weight":
        return None
    found = [
        (token, DIRECTIONS[key]) for token in tokens if (key := token_in_table(token)) is not None
    ]
    if not found:
        return "max" if "score" in tokens or "scores" in tokens else None
    token, direction = found[-1]
    return "min" if token == "likelihood" and {"negative", "neg"} & set(tokens) else direction


def token_in_table(token: str) -> str | None:
    """Form in which the table has a token: as it is, without its count, or without its plural s."""
    forms = (token, token.rstrip("0123456789"), token.removesuffix("s"), token.removesuffix("es"))
    return next((form for form in forms if form in DIRECTIONS), None)


def metric_mode(name: str, mode: Literal["min", "max", "auto"]) -> Mode:
    """Direction in which a metric improves.

    Raises
    ------
    InvalidOptionError
        If the mode is `"auto"` and the name does not imply one, or if there is no such mode.
    """
    if mode not in ("min", "max", "auto"):
        raise InvalidOptionError(f"Expected mode to be 'min', 'max' or 'auto'; got {mode!r}.")
    direction = metric_direction(name) if mode == "auto" else mode
    if direction is None:
        raise InvalidOptionError(
            f"Whether a higher or a lower '{name}' is better is not known here. "
            "Give mode='min' or mode='max'."
        )
    return direction


def canonical_name(name: str, known: Collection[str]) -> str:
    """Name under which a metric is known, where only the place or spelling of its split differs.

    `validation_elbo` and `elbo_val` are `elbo_validation`, `val_loss` is `validation_loss`, and
    `eval_loss_epoch` is too. A name that is known, or is in no spelling, stays as it is.
    """
    if name in known:
        return name
    stem = name.removesuffix("_epoch")
    first, _, after = stem.partition("_")
    before, _, last = stem.rpartition("_")
    candidates = [stem]
    for split, spellings in SPLIT_NAMES.items():
        for token, rest in ((first, after), (last, before)):
            if token in spellings and rest:
                every = (split, *spellings)
                candidates += [f"{rest}_{s}" for s in every] + [f"{s}_{rest}" for s in every]
    return next((candidate for candidate in candidates if candidate in known), name)


def check_monitor(name: str, known: Collection[str], *, more_may_come: bool = False) -> None:
    """Check that a metric that is monitored is one that will be measured.

    Raises
    ------
    InvalidOptionError
        If it is not, with the closest name.
    """
    if name in known:
        return
    other = canonical_name(name, known)
    close = f" Did you mean '{other}'?" if other in known else did_you_mean(name, known)
    if more_may_come and not close:
        return
    raise InvalidOptionError(
        f"Nothing measures '{name}', which is to be monitored.{close} "
        f"Measured are: {', '.join(known)}."
    )


def warn_never_measured(name: str, measured: Collection[str]) -> None:
    """Warn that a metric that a learning rate schedule follows was never measured.

    Warns
    -----
    TrainingWarning
        With the names of the metrics that were.
    """
    warn(
        f"The learning rate schedule never stepped: '{name}' was not measured in any epoch of "
        f"this run.{did_you_mean(name, measured)} Measured were: {', '.join(sorted(measured))}. "
        "For a metric of validation cells, check_val_every_n_epoch must be at most the number of "
        "epochs.",
        TrainingWarning,
    )

"""Names of what is measured in training, and which direction is better."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from cellvae.errors import InvalidOptionError, did_you_mean

Split = Literal["train", "validation"]
Mode = Literal["min", "max"]

PARTS = ("elbo", "reconstruction_loss", "kl_local", "kl_global")
LOWER_IS_BETTER = (
    "loss",
    "elbo",
    "kl",
    "reconstruction",
    "perplexity",
    "error",
    "mmd",
    "mse",
    "mae",
)
HIGHER_IS_BETTER = (
    *("accuracy", "acc", "f1", "auroc", "asw", "lisi", "nmi", "ari", "recall", "precision"),
    *("ndcg", "hit", "map", "mrr", "likelihood", "r2", "score", "conn", "pcr"),
)


def metric_names(split: Split, extra: Collection[str] = ()) -> list[str]:
    """Names of everything that a plan measures on one split."""
    return [
        *(f"{part}_{split}" for part in PARTS),
        f"{split}_loss",
        *(f"{name}_{split}" for name in extra),
    ]


def is_validation(name: str) -> bool:
    """Whether a metric is measured on validation cells, by its name."""
    words = name.lower().replace("/", "_").split("_")
    return "validation" in words or "val" in words


def better(name: str, mode: Literal["min", "max", "auto"]) -> Mode:
    """Direction in which a metric improves.

    Raises
    ------
    InvalidOptionError
        If the mode is `"auto"` and the name tells nothing.
    """
    if mode != "auto":
        return mode
    words = name.lower().replace("/", "_").replace("@", "_").split("_")
    if any(word.startswith(LOWER_IS_BETTER) for word in words):
        return "min"
    if any(word.startswith(HIGHER_IS_BETTER) for word in words):
        return "max"
    raise InvalidOptionError(
        f"Whether a higher or a lower '{name}' is better is not known here. "
        "Give mode='min' or mode='max'."
    )


def check_monitor(name: str, known: Collection[str], *, more_may_come: bool = False) -> None:
    """Check that a metric that is monitored is one that will be measured.

    Raises
    ------
    InvalidOptionError
        If it is not, with the closest name.
    """
    if name in known or more_may_come and not did_you_mean(name, known):
        return
    close = did_you_mean(name, known)
    raise InvalidOptionError(
        f"Nothing measures '{name}', which is to be monitored.{close} "
        f"Measured are: {', '.join(known)}."
    )

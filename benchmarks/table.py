"""Figures of runs: medians over seeds, ratios, and a table to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

PEER, OURS = "scvi-tools", "cellvae"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table."""

    key: str
    title: str
    better: Literal["lower", "higher", "neither"]
    digits: int


FIGURES = (
    Figure(key="elbo_last", title="held-out -ELBO, last epoch", better="lower", digits=2),
    Figure(key="elbo_best", title="held-out -ELBO, best epoch", better="lower", digits=2),
    Figure(key="elbo_again", title="held-out -ELBO, computed anew", better="lower", digits=2),
    Figure(key="reconstruction", title="held-out reconstruction", better="lower", digits=2),
    Figure(key="kl", title="held-out KL", better="neither", digits=2),
    Figure(key="kl_weight", title="KL weight at the end", better="neither", digits=3),
    Figure(key="knn_accuracy", title="kNN(15) accuracy of cell type", better="higher", digits=4),
    Figure(key="batch_mixing", title="batch mixing, k = 15", better="higher", digits=4),
    Figure(key="silhouette", title="silhouette of cell type", better="higher", digits=4),
    Figure(key="epoch_seconds", title="s per epoch, training", better="lower", digits=3),
    Figure(key="epoch_cpu_seconds", title="processor s per epoch", better="lower", digits=3),
    Figure(key="validation_seconds", title="s per validation", better="lower", digits=3),
    Figure(key="cells_per_second", title="training cells per s", better="higher", digits=0),
    Figure(key="fit_seconds", title="s in train() altogether", better="lower", digits=2),
    Figure(key="setup_seconds", title="s to set up and make the model", better="lower", digits=3),
    Figure(key="import_seconds", title="s to import package and model", better="lower", digits=2),
    Figure(key="peak_mib", title="peak memory, MiB", better="lower", digits=0),
)


def figures_of(answer: Mapping[str, Any]) -> dict[str, float | None]:
    """Figures of one run, without the scores of its latent space."""
    history = answer["history"]
    # The first epoch warms caches and allocators up, unless it is all there is.
    seconds = median(answer["train_seconds"][1:] or answer["train_seconds"])
    return {
        "elbo_last": history["elbo_validation"][-1],
        "elbo_best": min(history["elbo_validation"]),
        "elbo_again": sum(answer["elbo_passes"]) / len(answer["elbo_passes"]),
        "reconstruction": history["reconstruction_loss_validation"][-1],
        "kl": history["kl_local_validation"][-1],
        "kl_weight": history["kl_weight"][-1] if "kl_weight" in history else None,
        "epoch_seconds": seconds,
        "epoch_cpu_seconds": median(answer["train_cpu_seconds"][1:] or answer["train_cpu_seconds"]),
        "validation_seconds": median(
            answer["validation_seconds"][1:] or answer["validation_seconds"]
        ),
        "cells_per_second": answer["n_train"] / seconds,
        "fit_seconds": answer["fit_seconds"],
        "setup_seconds": answer["setup_seconds"],
        "import_seconds": answer["import_seconds"],
        "peak_mib": answer["peak_mib"],
    }


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Median of each figure over runs; None where no run has it."""
    values = {f.key: [run["figures"].get(f.key) for run in runs] for f in FIGURES}
    known = {key: [v for v in column if v is not None] for key, column in values.items()}
    return {key: median(column) if column else None for key, column in known.items()}


def ratio(ours: float | None, peer: float | None) -> float | None:
    """Ours over the peer's; None where one is missing or not above zero."""
    return ours / peer if ours and peer and ours > 0 and peer > 0 else None


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians of both packages and their ratios, for runs of one number of threads."""
    by_side = {s: medians([run for run in runs if run["side"] == s]) for s in (PEER, OURS)}
    ratios = {f.key: ratio(by_side[OURS][f.key], by_side[PEER][f.key]) for f in FIGURES}
    return {"medians": by_side, "ratios": ratios}


def shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """Table of the runs of one number of threads: each seed, the medians and their ratio."""
    found = {(run["side"], run["seed"]): run["figures"] for run in runs}
    columns = sorted(found, key=lambda column: (column[0] == OURS, column[1]))
    sides = [side for side in (PEER, OURS) if any(side == column[0] for column in columns)]
    total = summary(runs)
    titles = [f"{side}, seed {seed}" for side, seed in columns]
    titles += [*(f"{side}, median" for side in sides), f"{OURS} / {PEER}", "better"]
    rows = [["figure", *titles], ["---", *["---:"] * (len(titles) - 1), "---"]]
    for figure in FIGURES:
        middle = [total["medians"][side][figure.key] for side in sides]
        if all(value is None for value in middle):
            continue
        values = [found[column].get(figure.key) for column in columns] + middle
        texts = [shown(value, figure.digits) for value in values]
        rows.append([figure.title, *texts, shown(total["ratios"][figure.key], 3), figure.better])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)

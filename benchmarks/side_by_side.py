"""scvi-tools and cellvae, trained in turn on the same cells with the same split: what came out?"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from machine import processor
from protocol import Task, chosen_cells, split_of
from table import OURS, PEER, figures_of, markdown, summary

from cellvae.evaluation import batch_mixing, knn_accuracy
from cellvae.evaluation.integration import silhouette

HERE = Path(__file__).resolve().parent
WORKERS = {PEER: HERE / "worker_peer.py", OURS: HERE / "worker_cellvae.py"}
NEIGHBOURS = 15


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is known of the cells that take part."""

    n_cells: int
    batch: np.ndarray | None
    labels: np.ndarray | None
    labelled: np.ndarray | None

    @classmethod
    def read(cls, arguments: argparse.Namespace) -> Truth:
        obs = anndata.read_h5ad(arguments.data, backed="r").obs
        obs = obs.iloc[chosen_cells(len(obs), arguments.limit_cells)]
        batch = labels = labelled = None
        if arguments.batch_key is not None:
            batch = obs[arguments.batch_key].astype(str).to_numpy()
        if arguments.label_key in obs:
            column = obs[arguments.label_key]
            labelled = (column.notna() & (column.astype(str) != arguments.unlabelled)).to_numpy()
            labels = column.astype(object).to_numpy()
        return cls(n_cells=len(obs), batch=batch, labels=labels, labelled=labelled)


def parsed() -> argparse.Namespace:
    """The command line, its batch key looked up in the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="an .h5ad file with counts in X")
    add(
        "--peer-python",
        default=os.environ.get("CELLVAE_PEER_PYTHON"),
        help="Python with scvi-tools",
    )
    add("--own-python", default=sys.executable, help="Python with cellvae")
    add("--batch-key", default="batch", help="column of batches, left out if there is none")
    add("--label-key", default="cell_type", help="column of cell types, left out if there is none")
    add("--unlabelled", default="Unassigned", help="label of cells without a known type")
    add("--epochs", type=int, default=30)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--threads", type=int, nargs="+", default=[1, 2], help="torch threads, one table each")
    add("--kl-warmup-epochs", type=int, help="the same for both; by default each has its own")
    add("--elbo-passes", type=int, default=10)
    add("--limit-cells", type=int, help="a random subset, to try things out")
    add("--only", choices=[PEER, OURS], help="one of the two, to try things out")
    add("--out", type=Path, help="JSON file for all figures")
    arguments = parser.parse_args()
    if arguments.peer_python is None and arguments.only != OURS:
        parser.error("name the Python that has scvi-tools: --peer-python or CELLVAE_PEER_PYTHON")
    for python in (arguments.peer_python, arguments.own_python):
        if python is not None and shutil.which(python) is None:
            parser.error(f"there is no Python at {python}")
    if arguments.batch_key not in anndata.read_h5ad(arguments.data, backed="r").obs:
        arguments.batch_key = None
    return arguments


def turns(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Package and seed of each run; who goes first changes with every seed."""
    for number, seed in enumerate(arguments.seeds):
        for side in (PEER, OURS) if number % 2 == 0 else (OURS, PEER):
            if arguments.only in (None, side):
                yield side, seed


def environment(threads: int, side: str) -> dict[str, str]:
    """Variables of a run: as many threads for every library, and the peer on its own."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    variables = os.environ | dict.fromkeys(names, str(threads))
    if side == PEER:
        variables.pop("PYTHONPATH", None)
    return variables


def run_once(
    arguments: argparse.Namespace, truth: Truth, side: str, seed: int, threads: int
) -> dict[str, Any]:
    """Train in a process of its own, check that it did what was asked, and score the latent."""
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            data=str(arguments.data.resolve()),
            folder=folder,
            seed=seed,
            threads=threads,
            max_epochs=arguments.epochs,
            batch_key=arguments.batch_key,
            limit_cells=arguments.limit_cells,
            kl_warmup_epochs=arguments.kl_warmup_epochs,
            elbo_passes=arguments.elbo_passes,
        )
        train, validation = split_of(truth.n_cells, seed)
        task.save_array("train", train)
        task.save_array("validation", validation)
        path = Path(folder) / "task.json"
        task.write(path)
        python = arguments.peer_python if side == PEER else arguments.own_python
        done = subprocess.run(
            [python, WORKERS[side], path],
            env=environment(threads, side),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{side}, seed {seed}: the run failed.\n{done.stderr[-4000:]}")
        answer = task.load_answer()
        check(task, answer, train, validation)
        latent = task.load_array("latent")
    figures = figures_of(answer) | scores(latent, truth)
    return {"side": side, "seed": seed, "threads": threads, "figures": figures, "answer": answer}


def check(task: Task, answer: dict[str, Any], train: np.ndarray, validation: np.ndarray) -> None:
    """Check that a run used the split, the threads and the epochs of its task."""
    assert np.array_equal(task.load_array("used_train"), train)
    assert np.array_equal(task.load_array("used_validation"), validation)
    assert answer["threads"] == task.threads
    assert len(answer["train_seconds"]) == len(answer["validation_seconds"]) == task.max_epochs
    assert len(answer["history"]["elbo_validation"]) == task.max_epochs


def scores(latent: np.ndarray, truth: Truth) -> dict[str, float | None]:
    """Scores of a latent space: of cell types over the labelled cells, of batches over all."""
    found: dict[str, float | None] = {}
    if truth.labels is not None and truth.labelled is not None:
        mine, labels = latent[truth.labelled], truth.labels[truth.labelled]
        found["knn_accuracy"] = knn_accuracy(mine, labels, k=NEIGHBOURS)
        found["silhouette"] = silhouette(mine, labels)
    if truth.batch is not None:
        found["batch_mixing"] = batch_mixing(latent, truth.batch, k=NEIGHBOURS)
    return found


def machine() -> dict[str, Any]:
    """What the runs ran on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def settings_of(arguments: argparse.Namespace, truth: Truth) -> dict[str, Any]:
    """What was asked for, without the paths of this machine."""
    values = {
        k: v for k, v in vars(arguments).items() if k not in ("peer_python", "own_python", "out")
    }
    return values | {"data": arguments.data.name, "n_cells": truth.n_cells}


def main() -> None:
    arguments = parsed()
    truth = Truth.read(arguments)
    report: dict[str, Any] = {
        "settings": settings_of(arguments, truth),
        "machine": machine(),
        "runs": [],
        "summary": {},
    }
    for threads in arguments.threads:
        for side, seed in turns(arguments):
            report["runs"].append(run := run_once(arguments, truth, side, seed, threads))
            print(
                f"{side}, seed {seed}, threads {threads}: -ELBO {run['figures']['elbo_last']:.2f}, "
                f"{run['figures']['epoch_seconds']:.3f} s per epoch, "
                f"load {run['answer']['load_before']:.1f} before",
                file=sys.stderr,
                flush=True,
            )
            mine = [r for r in report["runs"] if r["threads"] == threads]
            report["summary"][str(threads)] = summary(mine)
            if arguments.out is not None:
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(report, indent=2) + "\n")
        batches = "no batches" if truth.batch is None else f"{len(pd.unique(truth.batch))} batches"
        cells = f"{arguments.data.stem}, {truth.n_cells:,} cells, {batches}"
        print(f"\n### {cells}, torch threads: {threads}\n")
        print(markdown(mine), flush=True)


if __name__ == "__main__":
    main()

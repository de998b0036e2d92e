"""SCVI trained by 1, 2 and 4 processes in turns: ELBO by epoch, seconds, and what limits them.

`python benchmarks/ranks.py --data DATA --out FILE`. Runs that are in the file already are not made
again, so that seeds can be run one by one. `--batch-norm all own` compares batch normalisation over
the cells of all processes with that over the cells of each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import processor

WORKER = Path(__file__).with_name("ranks_worker.py")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train once in processes of its own; history and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.get("threads", 1))}
        load = os.getloadavg()[0]
        subprocess.run(
            [sys.executable, WORKER, json.dumps({**job, "out": str(out)})],
            check=True,
            env=environment,
        )
        return {**job, "load before": load, **json.loads(out.read_text())}


def jobs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs to be made, seed by seed; who goes first changes with the seed."""
    made = []
    for seed in arguments.seeds:
        kinds = [
            (ranks, norm)
            for ranks in arguments.ranks
            for norm in arguments.batch_norm
            if ranks > 1 or norm == "all"
        ]
        shift = seed % len(kinds)
        made += [
            {
                "data": str(arguments.data),
                "cells": arguments.cells,
                "epochs": arguments.epochs,
                "seed": seed,
                "ranks": ranks,
                "batch_norm": norm,
            }
            for ranks, norm in kinds[shift:] + kinds[:shift]
        ]
    return made


def summary(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """ELBO and seconds by number of processes, with the difference to one process by seed."""
    alone = {each["seed"]: each for each in runs if each["ranks"] == 1}
    rows = []
    kinds = sorted({(each["ranks"], each["batch_norm"]) for each in runs})
    for ranks, norm in kinds:
        own = [each for each in runs if (each["ranks"], each["batch_norm"]) == (ranks, norm)]
        row: dict[str, Any] = {"processes": ranks, "cells of": norm, "runs": len(own)}
        for part, name in (("train", "training"), ("validation", "held out")):
            losses = {each["seed"]: np.array(each[f"elbo_{part}"]) for each in own}
            last = [values[-1] for values in losses.values()]
            row[f"{name} -ELBO"] = np.mean(last)
            row[f"{name}, standard deviation"] = np.std(last, ddof=1) if len(last) > 1 else np.nan
            paired = [
                values - alone[seed][f"elbo_{part}"]
                for seed, values in losses.items()
                if seed in alone
            ]
            if paired:
                row[f"{name}, less one process"] = np.mean(paired, axis=0)[-1]
                row[f"{name}, less one, every epoch"] = np.mean(paired)
        rate = [each["training cells"] / np.median(each["seconds of epochs"][1:]) for each in own]
        row["training cells per s"] = float(np.median(rate))
        row["s in train()"] = float(np.median([each["seconds of train()"] for each in own]))
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--cells", type=int, default=10**9, help="cells drawn from the file")
    parser.add_argument("--batch-norm", nargs="+", choices=["all", "own"], default=["all"])
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"runs": []}
    for job in jobs(arguments):
        if any(all(each[key] == value for key, value in job.items()) for each in found["runs"]):
            continue
        found["runs"].append(run(job))
        found["machine"] = {"processor": processor(), "cores": os.cpu_count()}
        arguments.out.write_text(json.dumps(found))
    print(summary(found["runs"]).round(2).T.to_string(header=False))


if __name__ == "__main__":
    main()

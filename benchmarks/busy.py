"""Training on a machine that other programs use too, beside the same on an idle one.

SCVI on 4,000 simulated cells x 2,000 genes by both packages, with one and two threads, while other
processes compute without end. `cellvae, libgomp's spin` has the time that threads spin by default
(GOMP_SPINCOUNT=300000), as a program has that imports torch before cellvae.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from machine import processor
from simulated import simulated
from speed import OURS, PEER, Run, measured

LOOP = "while True: pass"
VARIANTS = {
    "cellvae": (OURS, {}),
    "cellvae, libgomp's spin": (OURS, {"GOMP_SPINCOUNT": "300000"}),
    "scvi-tools": (PEER, {}),
}

PYTHONS = {OURS: "own_python", PEER: "peer_python"}


@contextmanager
def other_programs(number: int) -> Iterator[None]:
    """Processes that compute until the block ends."""
    with ExitStack() as stack:
        for _ in range(number):
            process = subprocess.Popen([sys.executable, "-c", LOOP])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables of the processes that the block starts."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"), help="none: cellvae alone")
    add("--own-python", default=sys.executable, help="Python with cellvae")
    add("--busy", type=int, nargs="+", default=[0, 2], help="numbers of other programs")
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--epochs", type=int, default=4)
    add("--repeat", type=int, default=3)
    add("--out", type=Path, default=Path("busy.json"))
    return parser.parse_args()


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Medians of the seconds of an epoch."""
    lines = ["| run | s per epoch | lowest | highest |", "|---|---:|---:|---:|"]
    for title, runs in results.items():
        seconds = [run["epoch"] for run in runs]
        lines.append(
            f"| {title} | {median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = parse_arguments()
    arguments.accelerator = "cpu"
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "cells.h5ad"
        simulated(4_000, 2_000, 0.15).write_h5ad(data)
        for seed in range(arguments.repeat):
            for busy in arguments.busy:
                for threads in arguments.threads:
                    run = Run(case="busy", threads=threads, epochs=arguments.epochs)
                    for name, (side, variables) in VARIANTS.items():
                        python = getattr(arguments, PYTHONS[side])
                        if not python:
                            continue
                        title = f"{name}, {threads} threads, {busy} other programs"
                        with environment(variables), other_programs(busy):
                            found = measured(run, python, seed, data, arguments)
                        results.setdefault(title, []).append(found)
                        print(title, f"{found['epoch']:.2f}", file=sys.stderr, flush=True)
                        arguments.out.write_text(
                            json.dumps({"processor": processor(), "results": results}, indent=1)
                        )
    print(f"{processor()}\n\n{table(results)}")


if __name__ == "__main__":
    main()

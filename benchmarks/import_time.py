"""Seconds that imports take in fresh processes, in turn: torch alone, cellvae, and the peer."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from statistics import median

# The clock runs inside, so that starting Python itself does not count.
TIMED = "import time; begin = time.perf_counter(); {}; print(time.perf_counter() - begin)"
TORCH, OURS = "import torch", "import cellvae"
FIRST_USE = "import cellvae; cellvae.model.SCVI"
PEER = "import scvi"
GOAL = 1.6


def seconds(python: str, statement: str) -> float:
    """Seconds of a statement in a process of its own."""
    variables = dict(os.environ)
    if statement == PEER:
        variables.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-c", TIMED.format(statement)],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{statement!r} failed in {python}:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=7, help="times each statement is run")
    parser.add_argument("--own-python", default=sys.executable, help="Python with cellvae")
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("CELLVAE_PEER_PYTHON"),
        help="Python with scvi-tools",
    )
    arguments = parser.parse_args()
    pythons = dict.fromkeys((TORCH, OURS, FIRST_USE), arguments.own_python)
    if arguments.peer_python:
        pythons[PEER] = arguments.peer_python
    for statement, python in pythons.items():
        seconds(python, statement)  # not counted: reads files into memory, compiles modules
    found: dict[str, list[float]] = {statement: [] for statement in pythons}
    for _ in range(arguments.n):
        for statement, python in pythons.items():
            found[statement].append(seconds(python, statement))
    base = median(found[TORCH])
    print("| statement | median s | least s | most s | times torch |\n|---|---:|---:|---:|---:|")
    for statement, times in found.items():
        middle = median(times)
        print(
            f"| `{statement}` | {middle:.2f} | {min(times):.2f} | {max(times):.2f} "
            f"| {middle / base:.2f} |"
        )
    verdict = "reached" if median(found[OURS]) / base <= GOAL else "missed"
    print(f"\nGoal for `{OURS}`: at most {GOAL} times `{TORCH}`: {verdict}.")


if __name__ == "__main__":
    main()

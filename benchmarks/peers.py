"""Runs that are asked of both packages: each a process of its own that ends with a line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEER, OURS = "scvi", "cellvae"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

Runs = dict[str, list[dict[str, Any]]]


def parser_for(description: str | None) -> argparse.ArgumentParser:
    """Command line with the words that all comparisons have."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="file of the cells (.h5ad)")
    add("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"), required=False)
    add("--own-python", default=sys.executable, help="Python with cellvae")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--threads", type=int, default=1)
    add("--out", type=Path, help="JSON file for all figures")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, if it names a Python with scvi-tools."""
    arguments = parser.parse_args()
    if arguments.peer_python is None or shutil.which(arguments.peer_python) is None:
        parser.error("name the Python that has scvi-tools: --peer-python or CELLVAE_PEER_PYTHON")
    return arguments


def answer(worker: str, side: str, args: Sequence[object], arguments: argparse.Namespace) -> Any:
    """What a worker says in the end.

    The worker is called with the package, the data, the words and the number of threads.
    """
    variables = os.environ | dict.fromkeys(THREADS, str(arguments.threads))
    python = arguments.own_python
    if side == PEER:
        python = arguments.peer_python
        variables.pop("PYTHONPATH", None)
    given = [HERE / worker, side, arguments.data, *args, arguments.threads]
    done = subprocess.run(
        [python, *map(str, given)], env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} {args}: the run failed.\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(
    worker: str, arguments: argparse.Namespace, *args: object
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Answers of both packages for every seed; who goes first changes with each."""
    runs: Runs = {PEER: [], OURS: []}
    for i, seed in enumerate(arguments.seeds):
        for side in (PEER, OURS) if i % 2 == 0 else (OURS, PEER):
            found = {"seed": seed, **answer(worker, side, [seed, *args], arguments)}
            runs[side].append(found)
            print(f"{side}: {found}", file=sys.stderr, flush=True)
            yield side, found
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(runs, indent=2) + "\n")


def runs_of(worker: str, arguments: argparse.Namespace, *args: object) -> Runs:
    """All answers of both packages, in the order of the seeds."""
    runs: Runs = {PEER: [], OURS: []}
    for side, found in in_turns(worker, arguments, *args):
        runs[side].append(found)
    return runs

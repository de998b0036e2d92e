"""scvi-tools and cellvae, asked the same questions in turn: how long, and how much memory?"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEER, OURS = "scvi", "cellvae"
# Number of cells of each question; all have 2,000 genes.
QUESTIONS = {"expression": 10_000, "differential": 20_000, "simulated": 20_000, "latent": 20_000}
TEXTS = {
    "expression": "normalized expression, 10 draws, 10,000 cells",
    "differential": "differential expression, ten groups against the rest, 20,000 cells",
    "simulated": "posterior predictive counts, 2 draws, 20,000 cells",
    "latent": "latent representation, 20,000 cells",
}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"), required=False)
    add("--own-python", default=sys.executable, help="Python with cellvae")
    add("--repeats", type=int, default=3)
    add("--threads", type=int, default=2)
    add("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    add("--scale", type=float, default=1.0, help="share of the cells, to try things out")
    add("--out", type=Path, help="JSON file for all figures")
    arguments = parser.parse_args()
    if arguments.peer_python is None or shutil.which(arguments.peer_python) is None:
        parser.error("name the Python that has scvi-tools: --peer-python or CELLVAE_PEER_PYTHON")
    return arguments


def ask(python: str, side: str, question: str, n_cells: int, threads: int) -> dict[str, Any]:
    """Answer of a process of its own."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    variables = os.environ | dict.fromkeys(names, str(threads))
    if side == PEER:
        variables.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, HERE / "question_worker.py", side, question, str(n_cells), str(threads)],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{side}, {question}: the run failed.\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    arguments = parsed()
    pythons = {PEER: arguments.peer_python, OURS: arguments.own_python}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for question in arguments.questions:
        runs: dict[str, list[dict[str, Any]]] = {PEER: [], OURS: []}
        n_cells = int(QUESTIONS[question] * arguments.scale)
        for repeat in range(arguments.repeats):
            for side in (PEER, OURS) if repeat % 2 == 0 else (OURS, PEER):
                answer = ask(pythons[side], side, question, n_cells, arguments.threads)
                runs[side].append(answer)
                print(f"{question}, {side}: {answer}", file=sys.stderr, flush=True)
        found[question] = runs
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(
        "| question | scvi-tools, s | cellvae, s | times faster | scvi-tools, MiB | cellvae, MiB |"
    )
    print("|---|---|---|---|---|---|")
    for question, runs in found.items():
        seconds = {s: statistics.median(r["seconds"] for r in runs[s]) for s in runs}
        memory = {s: statistics.median(r["extra_mib"] for r in runs[s]) for s in runs}
        print(
            f"| {TEXTS[question]} | {seconds[PEER]:.2f} | {seconds[OURS]:.2f} | "
            f"{seconds[PEER] / seconds[OURS]:.1f} | {memory[PEER]:,.0f} | {memory[OURS]:,.0f} |"
        )


if __name__ == "__main__":
    main()

"""SCANVI of both packages on the same cells: how many hidden labels are told right?

Ten in a hundred labels of six donors are seen, none of two others. SCVI is trained first, and
SCANVI starts from it with a hundred cells of each label an epoch.
"""

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


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="file of the Kang cells (.h5ad)")
    add("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"), required=False)
    add("--own-python", default=sys.executable, help="Python with cellvae")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--epochs", type=int, nargs=2, default=[30, 20], help="epochs of SCVI and of SCANVI")
    add("--threads", type=int, default=1)
    add("--out", type=Path, help="JSON file for all figures")
    arguments = parser.parse_args()
    if arguments.peer_python is None or shutil.which(arguments.peer_python) is None:
        parser.error("name the Python that has scvi-tools: --peer-python or CELLVAE_PEER_PYTHON")
    return arguments


def told(python: str, side: str, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Figures of a process of its own."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    variables = os.environ | dict.fromkeys(names, str(arguments.threads))
    if side == PEER:
        variables.pop("PYTHONPATH", None)
    words = [side, arguments.data, seed, *arguments.epochs, arguments.threads]
    done = subprocess.run(
        [python, HERE / "label_worker.py", *map(str, words)],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{side}, seed {seed}: the run failed.\n{done.stderr[-4000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    arguments = parsed()
    pythons = {PEER: arguments.peer_python, OURS: arguments.own_python}
    runs: dict[str, list[dict[str, Any]]] = {PEER: [], OURS: []}
    for i, seed in enumerate(arguments.seeds):
        for side in (PEER, OURS) if i % 2 == 0 else (OURS, PEER):
            runs[side].append({"seed": seed, **told(pythons[side], side, seed, arguments)})
            print(f"{side}: {runs[side][-1]}", file=sys.stderr, flush=True)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(runs, indent=2) + "\n")
    print("| seed | figure | scvi-tools | cellvae |")
    print("|---|---|---|---|")
    for theirs, ours in zip(runs[PEER], runs[OURS], strict=True):
        for key, title in (("hidden", "hidden labels"), ("new donors", "labels of new donors")):
            print(
                f"| {theirs['seed']} | {title} told right | {theirs[key]:.4f} | {ours[key]:.4f} |"
            )
    for key in ("scvi_seconds", "scanvi_seconds"):
        medians = [statistics.median(run[key] for run in runs[side]) for side in (PEER, OURS)]
        print(f"| all | median {key.replace('_', ', ')} | {medians[0]:.1f} | {medians[1]:.1f} |")


if __name__ == "__main__":
    main()

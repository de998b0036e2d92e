"""Seconds from the start of a script to its first result: import, set-up, five epochs, latent.

SCVI on 10,000 simulated cells x 2,000 genes by both packages, each script in a process of its own,
in turn; and by cellvae as after a new installation, with no compiled kernels on disk.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from machine import processor
from simulated import simulated

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import anndata
import {package}
SCVI = {package}.model.SCVI
adata = anndata.read_h5ad(sys.argv[1])
SCVI.setup_anndata(adata)
model = SCVI(adata)
model.train(5, accelerator="cpu", enable_progress_bar=False)
adata.obsm["X_scVI"] = model.get_latent_representation()
"""


def run_script(python: str, package: str, data: Path, variables: dict[str, str]) -> list[float]:
    """Seconds by the clock and of the processors that a script takes."""
    environment = os.environ | variables
    if package == "scvi":
        environment.pop("PYTHONPATH", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(
        [python, "-c", SCRIPT.format(package=package), data],
        env=environment,
        check=True,
        capture_output=True,
    )
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return [wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"))
    parser.add_argument("--own-python", default=sys.executable, help="Python with cellvae")
    parser.add_argument("-n", type=int, default=3, help="repetitions")
    arguments = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "cells.h5ad"
        simulated(10_000, 2_000, 0.15).write_h5ad(data)
        run_script(arguments.own_python, "cellvae", data, {})  # compiles what is not compiled yet
        for number in range(arguments.n):
            new = {"NUMBA_CACHE_DIR": f"{folder}/{number}"}
            runs = {
                "cellvae": (arguments.own_python, "cellvae", {}),
                "cellvae, nothing compiled": (arguments.own_python, "cellvae", new),
            }
            if arguments.peer_python:
                runs["scvi-tools"] = (arguments.peer_python, "scvi", {})
            for title, (python, package, variables) in runs.items():
                found.setdefault(title, []).append(run_script(python, package, data, variables))
    print(f"{processor()}\n\n| script | median s | processor s |\n|---|---:|---:|")
    for title, seconds in found.items():
        wall, used = (median(values) for values in zip(*seconds, strict=True))
        print(f"| {title} | {wall:.1f} | {used:.1f} |")


if __name__ == "__main__":
    main()

"""All models beside scvi-tools: seconds of training, validation and latents, and memory.

    python benchmarks/models.py --peer-python 1.4.2=peer142/bin/python \
        --peer-python 1.5.1=peer151/bin/python --out models.json
    python benchmarks/models.py ... --quick

Counts, regions and proteins are simulated, the same for all packages. Each run of a model is a
process of its own, which trains it once for each batch size; the packages take turns, and who goes
first changes with every model. `--quick` is one model of a few cells in every package, to see that
it works; `--models` names those to run. Results go to the JSON file as they come, and a table in
Markdown, by model and batch size, to standard output.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import processor
from simulated import simulated

OURS = "cellvae"
FIGURES = ("train", "validation", "latent", "peak_mib")
N_PROTEINS = 15


def main() -> None:
    """Run all models with all packages, and print a table."""
    options = parse_options()
    if options.package:
        warnings.simplefilter("ignore")
        json.dump(run(options), sys.stdout)
        return
    pythons = {OURS: sys.executable}
    pythons |= dict(each.split("=", 1) for each in options.peer_python)
    report: dict[str, Any] = {"processor": processor(), "options": vars(options), "runs": []}
    for round_ in range(options.rounds):
        for i, model in enumerate(options.models or list(models(options))):
            turns = list(pythons) if (i + round_) % 2 == 0 else list(pythons)[::-1]
            for name in turns:
                report["runs"] += run_elsewhere(name, pythons[name], model, options.threads)
                Path(options.out).write_text(json.dumps(report, indent=1, default=str))
    print_table(report, list(pythons))


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--out", default="models.json")
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--features", type=int, default=1000, help="genes, and regions")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[128, 1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--package", choices=[OURS, "scvi"], default=None)
    options = parser.parse_args()
    if options.quick:
        options.cells, options.features, options.epochs = 300, 60, 2
        options.batch_sizes = options.batch_sizes[:1]
    return options


def run_elsewhere(name: str, python: str, model: str, threads: int) -> list[dict[str, Any]]:
    """What one process measured of a model; one row for each batch size."""
    arguments = sys.argv[1:]
    if "--models" in arguments:
        start = arguments.index("--models")
        end = next(
            (i for i, w in enumerate(arguments) if i > start and w.startswith("--")), len(arguments)
        )
        arguments = arguments[:start] + arguments[end:]
    package = OURS if name == OURS else "scvi"
    command = [python, __file__, *arguments, "--package", package, "--models", model]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    load = os.getloadavg()[0]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        message = done.stderr.strip().splitlines()[-1:] or ["no message"]
        print(f"{model}, {name}: failed: {message[0]}", file=sys.stderr)
        return [{"name": name, "model": model, "failed": done.stderr[-3000:]}]
    rows = json.loads(done.stdout.splitlines()[-1])
    for row in rows:
        print(name, model, row, file=sys.stderr)
    return [{"name": name, "model": model, "load": load, **row} for row in rows]


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one model with each batch size; seconds per epoch are medians without the first."""
    package: Any = importlib.import_module(options.package)  # before torch, as users have it
    for part in ("model", "external"):
        importlib.import_module(f"{options.package}.{part}")

    import torch
    from clock import EpochClock, peak_mib

    torch.set_num_threads(options.threads)
    package.settings.seed = 0
    (name,) = options.models
    rows = []
    for batch_size in options.batch_sizes:
        model = models(options)[name](package)
        clock = EpochClock()
        model.train(
            max_epochs=options.epochs,
            train_size=0.9,
            accelerator="cpu",
            early_stopping=False,
            check_val_every_n_epoch=1,
            callbacks=[clock],
            enable_progress_bar=False,
            batch_size=batch_size,
        )
        question = getattr(model, "get_latent_representation", None) or model.predict
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            question()
            seconds.append(time.perf_counter() - begin)
        rows.append(
            {
                "batch_size": batch_size,
                "train": median(clock.train[1:] or clock.train),
                "validation": median(clock.validation[1:]) if len(clock.validation) > 1 else None,
                "latent": median(seconds[1:]),
                "peak_mib": peak_mib(),
            }
        )
    return rows


def counts(options: argparse.Namespace, density: float) -> Any:
    """Counts of cells of two batches; labels of every second one are known."""
    adata = simulated(options.cells, options.features, density)
    known = np.arange(adata.n_obs) % 2 == 0
    adata.obs["label"] = np.where(known, adata.obs["group"], "unknown")
    return adata


def binary(options: argparse.Namespace) -> Any:
    """Regions that were detected in a cell."""
    adata = counts(options, 0.05)
    adata.X.data[:] = 1
    return adata


def with_proteins(options: argparse.Namespace) -> Any:
    """Counts of genes and of proteins."""
    import pandas as pd

    adata = counts(options, 0.1)
    random = np.random.default_rng(1)
    group = adata.obs["group"].astype("category").cat.codes.to_numpy()
    means = random.gamma(1.0, 20.0, (group.max() + 1, N_PROTEINS))[group] + 3
    names = [f"protein{i}" for i in range(N_PROTEINS)]
    table = pd.DataFrame(random.poisson(means), index=adata.obs_names, columns=names)
    adata.obsm["proteins"] = table.astype(np.float32)
    return adata


def two_modalities(options: argparse.Namespace) -> Any:
    """MuData of genes and regions of the same cells."""
    import mudata

    rna, regions = counts(options, 0.1), binary(options)
    regions.var_names = [f"region{i}" for i in range(regions.n_vars)]
    mdata = mudata.MuData({"rna": rna, "atac": regions})
    mdata.obs["batch"] = rna.obs["batch"].astype(str).to_numpy()
    return mdata


def make_solo(package: Any, options: argparse.Namespace) -> Any:
    """SOLO of an SCVI that was trained for an epoch."""
    adata = counts(options, 0.1)
    package.model.SCVI.setup_anndata(adata)
    model = package.model.SCVI(adata)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return package.external.SOLO.from_scvi_model(model)


def make_multivi(package: Any, options: argparse.Namespace) -> Any:
    """MULTIVI of paired cells."""
    mdata = two_modalities(options)
    modalities = {"rna_layer": "rna", "atac_layer": "atac"}
    package.model.MULTIVI.setup_mudata(mdata, batch_key="batch", modalities=modalities)
    sizes = {"n_genes": options.features, "n_regions": options.features}
    return package.model.MULTIVI(mdata, **({} if package.__name__ == OURS else sizes))


def models(options: argparse.Namespace) -> dict[str, Callable[[Any], Any]]:
    """Functions that make each model, with its default options, from a package."""

    def plain(
        name: str, adata: Callable[[], Any], setup: dict[str, Any], **config: Any
    ) -> Callable[[Any], Any]:
        def make(package: Any) -> Any:
            kind = getattr(package.model, name, None) or getattr(package.external, name)
            cells = adata()
            kind.setup_anndata(cells, **setup)
            return kind(cells, **config)

        return make

    def genes() -> Any:
        return counts(options, 0.1)

    batches = {"batch_key": "batch"}
    labels = {"labels_key": "label", "unlabeled_category": "unknown"}
    proteins = {"protein_expression_obsm_key": "proteins"}
    return {
        "SCVI, zinb": plain("SCVI", genes, batches),
        "SCVI, nb": plain("SCVI", genes, batches, gene_likelihood="nb"),
        "SCANVI": plain("SCANVI", genes, batches | labels),
        "LinearSCVI": plain("LinearSCVI", genes, batches),
        "PEAKVI": plain("PEAKVI", lambda: binary(options), batches),
        "POISSONVI": plain("POISSONVI", lambda: counts(options, 0.05), batches),
        "AmortizedLDA": plain("AmortizedLDA", genes, {}, n_topics=20),
        "TOTALVI": plain("TOTALVI", lambda: with_proteins(options), batches | proteins),
        "MULTIVI": lambda package: make_multivi(package, options),
        "SOLO": lambda package: make_solo(package, options),
    }


def print_table(report: dict[str, Any], names: list[str]) -> None:
    """Medians over rounds, by model and batch size, and how many times cellvae is faster."""
    found: dict[tuple[str, int], dict[str, dict[str, float | None]]] = {}
    for row in report["runs"]:
        if "failed" not in row:
            found.setdefault((row["model"], row["batch_size"]), {})
    for key, columns in found.items():
        for name in names:
            rows = [
                r
                for r in report["runs"]
                if r["name"] == name and (r["model"], r.get("batch_size")) == key
            ]
            for figure in FIGURES:
                values = [r[figure] for r in rows if r[figure] is not None]
                columns.setdefault(name, {})[figure] = median(values) if values else None
    print(report["processor"])
    peers = names[1:]
    titles = {"train": "s per epoch", "validation": "s per validation", "latent": "s of latents"}
    head = [f"{titles.get(f, 'peak MiB')}, {' / '.join(names)}" for f in FIGURES]
    times = [f"times faster than {name}" for name in peers]
    print("|", " | ".join(["model", "batch", *head, *times]), "|")
    print("|---" + "|---:" * (1 + len(head) + len(times)) + "|")
    for (model, batch_size), columns in found.items():
        cells = [
            " / ".join(shown(columns[name][figure], figure) for name in names) for figure in FIGURES
        ]
        ours = columns[OURS]["train"]
        factors = [columns[name]["train"] for name in peers]
        cells += [f"{f / ours:.1f}" if f is not None and ours else "-" for f in factors]
        print("|", " | ".join([model, f"{batch_size:,}", *cells]), "|")


def shown(value: float | None, figure: str) -> str:
    """Figure as text; a dash where there is none."""
    return "-" if value is None else f"{value:,.0f}" if figure == "peak_mib" else f"{value:.3f}"


if __name__ == "__main__":
    main()

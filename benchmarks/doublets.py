"""SOLO of both packages, and scanpy's scrublet, on cells with a known number of doublets.

A doublet is the sum of two cells of one batch, which are taken out. SCVI of cellvae is trained on
what is left, and both packages classify the same features of the same cells and simulated
doublets. `python benchmarks/doublets.py --data DATA --peer-python PYTHON --out FILE`; mixtures
that are in the file already are not run again, so that seeds can be run one by one.

Real cells have doublets of their own, so that the cells of each batch that score highest by
scrublet are taken out first (`--purge`). What is still called where nothing was mixed in (the rate
0) is reported, and the rate that is expected of a mixture: that of what was mixed in, and of the
others the fraction that was called before.

Without purging, the fraction of doublets among the cells may be known from the experiment
(`--own-rate`). Where the cells of several donors were pooled and doublets of two donors taken out
by their genotypes, those of one donor remain: `--pooled-rate` is the fraction of all doublets in
the pool, and the remaining fraction follows from the share of each donor.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.metrics import average_precision_score

import cellvae

METHODS = ("cellvae", "scvi-tools", "scrublet")
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
WORKER = Path(__file__).with_name("doublet_worker.py")


def mix(adata: anndata.AnnData, rate: float, seed: int) -> anndata.AnnData:
    """Cells of which a fraction are sums of two cells of a batch, which are taken out."""
    random = np.random.default_rng(seed)
    batch = adata.obs["batch"].astype(str).to_numpy()
    pairs, left = [], []
    for name in np.unique(batch):
        cells = random.permutation(np.flatnonzero(batch == name))
        n = round(rate / (1 + rate) * len(cells))
        pairs.append(cells[: 2 * n].reshape(-1, 2))
        left.append(cells[2 * n :])
    first, second = np.concatenate(pairs).T
    single = np.sort(np.concatenate(left))
    counts = sparse.vstack([adata.X[single], adata.X[first] + adata.X[second]]).tocsr()
    truth = np.repeat([False, True], [len(single), len(first)])
    obs = pd.DataFrame({"batch": batch[np.concatenate([single, first])], "doublet": truth})
    own_rate = adata.obs["own_rate"].to_numpy()[single]
    obs["expected"] = np.concatenate([own_rate, np.ones(len(first))])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    return anndata.AnnData(counts, obs=obs, var=adata.var[[]])


def read(arguments: argparse.Namespace) -> anndata.AnnData:
    """Cells of the chosen donors with the genes that vary most, and in `obs` their own rate."""
    adata = anndata.read_h5ad(arguments.data)
    if "batch" not in adata.obs:
        adata.obs["batch"] = "all"
    batch = adata.obs["batch"].astype(str)
    adata.obs["own_rate"] = np.nan
    if arguments.own_rate is not None:
        adata.obs["own_rate"] = arguments.own_rate
    if arguments.pooled_rate is not None:
        same = batch.map(batch.value_counts(normalize=True)).to_numpy() * arguments.pooled_rate
        adata.obs["own_rate"] = same / (same + 1 - arguments.pooled_rate)
    names = arguments.batches or np.unique(batch)[: arguments.donors]
    adata = adata[np.isin(batch, names)]
    logs = adata.X.astype(np.float64).tocsr()
    logs.data = np.log1p(logs.data)
    mean = np.asarray(logs.mean(axis=0)).ravel()
    variance = np.asarray(logs.multiply(logs).mean(axis=0)).ravel() - mean**2
    return adata[:, np.sort(np.argsort(-variance)[: arguments.genes])].copy()


def purge(adata: anndata.AnnData, fraction: float) -> anndata.AnnData:
    """Cells without those of each batch with the highest scores by scrublet."""
    if not fraction:
        return adata
    score = scrublet_scores(adata, fraction, seed=0)
    batch = adata.obs["batch"].astype(str).to_numpy()
    rank = pd.Series(score).groupby(batch).rank(pct=True, method="first")
    return adata[rank.to_numpy() <= 1 - fraction].copy()


def scrublet_scores(cells: anndata.AnnData, rate: float, seed: int) -> np.ndarray:
    """Scores of scanpy's scrublet, batch by batch."""
    import scanpy as sc

    copy = anndata.AnnData(sparse.csr_matrix(cells.X), obs=cells.obs[["batch"]].copy())
    sc.pp.scrublet(
        copy,
        batch_key="batch",
        expected_doublet_rate=rate,
        threshold=0.25,
        random_state=seed,
        use_approx_neighbors=False,
    )
    return copy.obs["doublet_score"].to_numpy()


def one_run(
    adata: anndata.AnnData, rate: float, seed: int, epochs: int, peer: str | None
) -> dict[str, Any]:
    """Figures of one mixture; those of the rate alone if there is no peer."""
    cells = mix(adata, rate, seed)
    truth = cells.obs["doublet"].to_numpy()
    cellvae.settings.seed = seed
    cellvae.model.SCVI.setup_anndata(cells, batch_key="batch")
    vae = cellvae.model.SCVI(cells)
    vae.train(max_epochs=epochs, **QUIET)
    solo = cellvae.model.SOLO.from_scvi_model(vae)
    figures = {"rate": rate, "cells": len(cells), "true": float(truth.mean()), "seed": seed}
    figures["expected"] = float(cells.obs["expected"].mean())
    if peer is None or not truth.any():
        solo.train(max_epochs=1, **QUIET)
        rates = solo.get_doublet_rate()
        called = sum(
            round(rates[name] * n) for name, n in cells.obs["batch"].value_counts().items()
        )
        return {**figures, "called": called / len(cells)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.h5ad"
        features = solo.adata.copy()
        features.uns.clear()
        features.write_h5ad(path)
        done = subprocess.run(
            [peer, WORKER, path, str(seed)], capture_output=True, text=True, check=True
        )
        theirs = np.array(json.loads(done.stdout.splitlines()[-1]))
    solo.train(**QUIET)
    calls = solo.call_doublets()
    score = calls["doublet_score"].to_numpy()
    network = solo.predict()["doublet"].to_numpy()
    try:
        scrublet = float(average_precision_score(truth, scrublet_scores(cells, rate, seed)))
    except ImportError:
        scrublet = float("nan")
    return {
        **figures,
        "AP scvi-tools": float(average_precision_score(truth, theirs)),
        "AP cellvae": float(average_precision_score(truth, score)),
        "AP cellvae, network": float(average_precision_score(truth, network)),
        "AP scrublet": scrublet,
        "above 1/2, cellvae": float((network > 0.5).mean()),
        "above 1/2, scvi-tools": float((theirs > 0.5).mean()),
        "called": float((calls["doublet_call"] == "doublet").mean()),
    }


def with_expected(table: pd.DataFrame) -> pd.DataFrame:
    """Mixtures alone, with the rate that is expected of each as `expected`."""
    before = table[table["rate"] == 0].groupby("data")["called"].mean()
    mixtures = table[table["rate"] > 0].copy()
    called = mixtures["true"] + (1 - mixtures["true"]) * mixtures["data"].map(before)
    mixtures["expected"] = mixtures["expected"].fillna(called)
    return mixtures


def summary(table: pd.DataFrame) -> str:
    """Paired differences of the packages, and errors of the rate that is called."""
    lines = []
    mixtures = with_expected(table)
    for data, runs in [*mixtures.groupby("data"), ("all", mixtures)]:
        line = f"{data}, {len(runs)} mixtures: "
        if "AP scvi-tools" in runs:
            difference = runs["AP cellvae"] - runs["AP scvi-tools"]
            line += (
                f"AP of cellvae less that of scvi-tools {difference.mean():+.4f}, standard error "
                f"{difference.sem():.4f}, above 0 in {(difference > 0).sum()}; "
            )
        line += "called"
        for column in ("true", "expected"):
            error = runs["called"] - runs[column]
            line += (
                f" within 2 points of the {column} rate in {(error.abs() <= 0.02).sum()}, root mean"
                f" square error {100 * np.sqrt((error**2).mean()):.1f} points, worst "
                f"{100 * error[error.abs().idxmax()]:+.1f};"
            )
        lines.append(line)
    return "\n".join(lines)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Average precision by method, and the rates that are called, against the true rate."""
    import matplotlib.pyplot as plt

    mixtures = with_expected(table)
    names = mixtures["data"].unique()
    figure, axes = plt.subplots(
        len(names), 2, figsize=(9, 3.4 * len(names)), layout="constrained", squeeze=False
    )
    for row, name in zip(axes, names, strict=True):
        runs = mixtures[mixtures["data"] == name]
        for method in METHODS:
            means = runs.groupby("rate")[f"AP {method}"].mean()
            (line,) = row[0].plot(100 * means.index, means, label=method)
            row[0].plot(100 * runs["rate"], runs[f"AP {method}"], ".", color=line.get_color())
        row[0].set(ylabel="average precision", ylim=(0, 1))
        row[1].axline((0, 0), slope=1, color="0.6", linewidth=0.8, label="mixed in")
        before = (runs["expected"] - runs["true"]) / (1 - runs["true"])
        rates = np.array([0, 0.25])
        expected = rates + (1 - rates) * before.mean()
        row[1].plot(
            100 * rates, 100 * expected, color="0.4", linestyle=":", label="with those before"
        )
        for column, label in (("called", "called"), ("above 1/2, cellvae", "predict above 1/2")):
            row[1].plot(100 * runs["true"], 100 * runs[column], ".", label=label)
        row[1].set(ylabel="cells, %")
        for axis in row:
            axis.set(xlabel="doublets mixed in, % of the cells")
            axis.set_title(name, loc="left", fontsize=10)
            axis.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("CELLVAE_PEER_PYTHON"),
        help="Python with scvi-tools; without it only rates are estimated",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--rates", type=float, nargs="+", default=[0, 0.05, 0.1, 0.15, 0.2, 0.25])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=60, help="of SCVI")
    parser.add_argument("--donors", type=int, default=3, help="number of batches, the first ones")
    parser.add_argument("--batches", nargs="+", help="names of the batches, in place of --donors")
    parser.add_argument("--own-rate", type=float, help="fraction of doublets among the cells")
    parser.add_argument("--pooled-rate", type=float, help="fraction of all doublets in a pool")
    parser.add_argument("--genes", type=int, default=1_500)
    parser.add_argument(
        "--purge", type=float, default=0.06, help="fraction of the cells that is taken out first"
    )
    parser.add_argument("--chart", type=Path, help="file for a chart (.svg)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    known = arguments.own_rate is not None or arguments.pooled_rate is not None
    if known and arguments.purge:
        parser.error("the fraction of doublets is that of all cells: give --purge 0 too")
    if arguments.chart is not None and arguments.peer_python is None:
        parser.error("the chart shows average precision too: name the Python that has scvi-tools")
    adata = purge(read(arguments), arguments.purge)
    runs = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    name = arguments.data.stem
    done = {(run["data"], run["rate"], run["seed"]) for run in runs}
    for rate in arguments.rates:
        for seed in arguments.seeds:
            if (name, rate, seed) in done or (rate == 0 and seed != arguments.seeds[0]):
                continue
            run = one_run(adata, rate, seed, arguments.epochs, arguments.peer_python)
            runs.append({"data": name, **run})
            print(runs[-1], file=sys.stderr, flush=True)
            arguments.out.write_text(json.dumps(runs, indent=1))
    table = pd.DataFrame(runs)
    print(table.round(3).to_string(index=False))
    print(summary(table))
    if arguments.chart is not None:
        draw(table, arguments.chart)


if __name__ == "__main__":
    main()

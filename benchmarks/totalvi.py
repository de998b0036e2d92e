"""TOTALVI beside scvi-tools: held-out ELBO, latents, imputed proteins, and seconds per epoch.

    python benchmarks/totalvi.py --data ../shared/data/pbmc_cite_10k_5k.h5ad \
        --peer-python peer/bin/python --limit-cells 3000 --epochs 40 --out totalvi.json

The same lines run both packages, each run in a process of its own; the packages take turns. With
`--hide-proteins-of BATCH` the proteins of a batch are set to zero (not measured), imputed, and
compared with what was measured. Where the file itself lacks them, `--measured` names one that has
them for some cells of that batch; these cells are kept whatever `--limit-cells` is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor

KEY = "protein_expression"


def main() -> None:
    """Run all seeds of both packages, and print a table of medians."""
    options = parse_options()
    if options.package:
        json.dump(run(options), sys.stdout)
        return
    pythons = {"cellvae": sys.executable, "scvi": options.peer_python}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for i, seed in enumerate(options.seeds):
        order = list(pythons) if i % 2 == 0 else list(pythons)[::-1]
        for package in order:
            folder = Path(options.out).with_suffix(f".{package}.{seed}")
            folder.mkdir(parents=True, exist_ok=True)
            command = [pythons[package], __file__, *sys.argv[1:], "--package", package]
            command += ["--seed", str(seed), "--folder", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-3000:])
            found = json.loads(done.stdout.splitlines()[-1]) | {"load": os.getloadavg()[0]}
            results[package].append(found | score_latent(options, folder))
            print(package, seed, results[package][-1], file=sys.stderr)
    report = {"processor": processor(), "options": vars(options), "results": results}
    Path(options.out).write_text(json.dumps(report, indent=1, default=str))
    print_table(results)


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"))
    parser.add_argument("--out", default="totalvi.json")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--limit-cells", type=int, default=0)
    parser.add_argument("--label-key", default="cell_type")
    parser.add_argument("--hide-proteins-of", default=None)
    parser.add_argument("--measured", default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--package", choices=["cellvae", "scvi"], default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=None)
    return parser.parse_args()


def read_cells(options: argparse.Namespace) -> Any:
    """Cells of the file, the same ones for every seed and package."""
    import anndata

    adata = anndata.read_h5ad(options.data)
    if 0 < options.limit_cells < adata.n_obs:
        chosen = np.random.RandomState(0).permutation(adata.n_obs)[: options.limit_cells]
        if options.measured:
            names = of_batch(adata, options.hide_proteins_of)
            measured = adata.obs_names.isin(names[names.isin(read_measured(options).index)].index)
            chosen = np.union1d(chosen, np.flatnonzero(measured))
        adata = adata[np.sort(chosen)].copy()
    adata.X = adata.X.astype(np.float32)
    return adata


def of_batch(adata: Any, batch: str) -> Any:
    """Barcodes of the cells of a batch, without what follows an underscore, by their names."""
    names = adata.obs_names[(adata.obs["batch"] == batch).to_numpy()].to_series()
    return names.str.partition("_")[0]


def read_measured(options: argparse.Namespace) -> Any:
    """Proteins that were measured in cells of the hidden batch; a table by barcode."""
    import anndata

    return anndata.read_h5ad(options.measured).obsm[KEY]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train one model; write its latent and its imputed proteins."""
    package: Any = importlib.import_module(options.package)  # before torch, as users have it

    import torch
    from clock import EpochClock, peak_mib

    torch.set_num_threads(options.threads)
    package.settings.seed = options.seed
    model_class = importlib.import_module(f"{options.package}.model").TOTALVI
    adata = read_cells(options)
    measured = adata.obsm[KEY].copy()
    hidden = (adata.obs["batch"] == options.hide_proteins_of).to_numpy()
    if hidden.any():
        adata.obsm[KEY].loc[hidden] = 0
    model_class.setup_anndata(adata, protein_expression_obsm_key=KEY, batch_key="batch")
    model = model_class(adata)
    order = np.random.RandomState(options.seed).permutation(adata.n_obs)
    n_held_out = adata.n_obs // 10
    clock = EpochClock()
    model.train(
        max_epochs=options.epochs,
        accelerator="cpu",
        early_stopping=False,
        check_val_every_n_epoch=options.epochs,
        external_indexing=[order[n_held_out:], order[:n_held_out]],
        n_epochs_kl_warmup=options.epochs // 2,
        reduce_lr_on_plateau=False,
        callbacks=[clock],
        enable_progress_bar=False,
    )
    peak = peak_mib()
    elbo = model.history["elbo_validation"]["elbo_validation"].dropna().iloc[-1]
    folder = Path(options.folder)
    np.save(folder / "latent.npy", model.get_latent_representation())
    seconds = float(np.median(clock.train[1:]))
    found = {"elbo_validation": float(elbo), "seconds_per_epoch": seconds, "peak_mib": peak}
    if hidden.any():
        other = next(b for b in adata.obs["batch"].unique() if b != options.hide_proteins_of)
        cells = np.flatnonzero(hidden)
        if options.measured:
            table, barcodes = read_measured(options), of_batch(adata, options.hide_proteins_of)
            cells = cells[barcodes.isin(table.index).to_numpy()]
            names = barcodes[adata.obs_names[cells]]
            measured = measured.astype(float)
            measured.iloc[cells] = table.loc[names, measured.columns].to_numpy()
        torch.manual_seed(0)
        _, imputed = model.get_normalized_expression(
            indices=cells,
            transform_batch=other,
            n_samples=10,
            include_protein_background=True,
        )
        found["imputation_spearman"] = mean_spearman(imputed.to_numpy(), measured.to_numpy()[cells])
        found["imputed_cells"] = len(cells)
    return found


def mean_spearman(imputed: np.ndarray, measured: np.ndarray) -> float:
    """Mean over proteins of the rank correlation over cells."""
    from scipy.stats import spearmanr

    varying = [j for j in range(measured.shape[1]) if np.ptp(measured[:, j]) > 0]
    return float(np.mean([spearmanr(imputed[:, j], measured[:, j])[0] for j in varying]))


def score_latent(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Accuracy of the cell types of neighbours, and mixing of the batches, of a latent."""
    from cellvae.evaluation import batch_mixing, knn_accuracy

    obs = read_cells(options).obs
    latent = np.load(folder / "latent.npy")
    labels = obs[options.label_key].astype(str).to_numpy()
    known = ~np.isin(np.char.lower(labels.astype(str)), ["nan", "unknown", ""])
    return {
        "knn_accuracy": float(knn_accuracy(latent[known], labels[known])),
        "batch_mixing": float(batch_mixing(latent, obs["batch"].astype(str).to_numpy())),
    }


def print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print medians, ranges and ratios."""
    for name in results["cellvae"][0]:
        ours, theirs = ([run[name] for run in results[p]] for p in ("cellvae", "scvi"))
        a, b = np.median(ours), np.median(theirs)
        print(f"{name:22s} cellvae {a:.4f} scvi-tools {b:.4f} ratio {a / b:.3f}")
        print(f"{'':22s} {np.round(ours, 4).tolist()} {np.round(theirs, 4).tolist()}")


if __name__ == "__main__":
    main()

"""MULTIVI beside scvi-tools: what it imputes where a modality was hidden, its latent, its cost.

    python benchmarks/multivi.py --rna ../shared/data/a549_scicar_rna.h5ad \
        --atac ../shared/data/a549_scicar_atac_binary.h5ad --peer-python peer/bin/python \
        --min-cells 0.01 --epochs 60 --lr 1e-3 --out multivi.json
    python benchmarks/multivi.py --multiome ../shared/data/pbmc_multiome_muon_1000.h5ad \
        --label-key none --n-hidden 64 --n-latent 10 --epochs 400 --lr 1e-3 ...

Genes and regions of the same cells. Of a third of them the regions are hidden, of another third the
genes: these are imputed, and compared with what was measured. The same lines run both packages,
each run in a process of its own; the packages take turns. scvi-tools is given zeros for what is
hidden, cellvae a MuData whose modalities have the cells in which they were measured. `--time-only`
trains for a few epochs and leaves the scores out.

What can be imputed at all is told by three references: the mean profile, the mean profile of the
cells of the same label (which no model is told), and a ridge regression from principal components
of one modality to the other, fitted to the paired cells.
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
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor
from scipy import sparse
from scipy.stats import rankdata

MODALITIES = np.array(["paired", "expression", "accessibility"])
MIN_DETECTED = 10
"""Cells in which a region or a gene has to be detected, to be scored by itself."""


def main() -> None:
    """Run all seeds of both packages, and print a table of medians."""
    options = parse_options()
    if options.package:
        warnings.simplefilter("ignore")
        json.dump(run(options), sys.stdout)
        return
    pythons = {"cellvae": sys.executable, "scvi": options.peer_python}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for seed in options.seeds:
        order = list(pythons) if seed % 2 == 0 else list(pythons)[::-1]
        for package in order:
            folder = Path(options.out).with_suffix(f".{package}.{seed}")
            folder.mkdir(parents=True, exist_ok=True)
            command = [pythons[package], __file__, *sys.argv[1:], "--package", package]
            command += ["--seed", str(seed), "--folder", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-3000:])
            found = json.loads(done.stdout.splitlines()[-1]) | {"load": os.getloadavg()[0]}
            if not options.time_only:
                found |= score(options, seed, folder)
            results[package].append(found)
            print(package, seed, found, file=sys.stderr, flush=True)
    baselines = [] if options.time_only else [score_references(options, s) for s in options.seeds]
    report = {"processor": processor(), "options": vars(options), "results": results}
    text = json.dumps(report | {"baselines": baselines}, indent=1, default=str)
    Path(options.out).write_text(text)
    print_table(results, baselines)


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rna")
    parser.add_argument("--atac")
    parser.add_argument("--multiome", help="both in one file, by var['feature_types']")
    parser.add_argument("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"))
    parser.add_argument("--out", default="multivi.json")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--min-cells", type=float, default=0.0, help="fraction of all")
    parser.add_argument("--batch-key", default=None, help="'modality', or none: one experiment")
    parser.add_argument("--gene-likelihood", default="zinb")
    parser.add_argument("--kl-warmup-epochs", type=int, default=50)
    parser.add_argument("--n-hidden", type=int, default=None)
    parser.add_argument("--n-latent", type=int, default=None)
    parser.add_argument("--early-stopping", action="store_true", help="as each package has it")
    parser.add_argument("--label-key", default="time_h", help="'none' where there are no labels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time-only", action="store_true")
    parser.add_argument("--package", choices=["cellvae", "scvi"], default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=None)
    return parser.parse_args()


def read_cells(options: argparse.Namespace) -> tuple[Any, Any]:
    """Genes and regions of the same cells."""
    import anndata

    if options.multiome:
        both = anndata.read_h5ad(options.multiome)
        is_gene = (both.var["feature_types"] == "Gene Expression").to_numpy()
        rna, atac = both[:, is_gene].copy(), both[:, ~is_gene].copy()
        atac.X.data[:] = 1.0
    else:
        rna, atac = anndata.read_h5ad(options.rna), anndata.read_h5ad(options.atac)
    least = max(1, options.min_cells * rna.n_obs)
    rna, atac = (
        part[:, np.asarray((part.X > 0).sum(axis=0)).ravel() >= least].copy()
        for part in (rna, atac)
    )
    return rna, atac


def hide(n_cells: int, seed: int) -> np.ndarray:
    """Modality of each cell: a third each is paired, has genes alone, has regions alone."""
    return MODALITIES[np.random.RandomState(1_000 + seed).permutation(n_cells) % 3]


def make_mudata(rna: Any, atac: Any, modality: np.ndarray, package: str) -> Any:
    """MuData in which what is hidden is zero (scvi), or is not there (cellvae)."""
    import mudata

    shown = {"rna": modality != "accessibility", "atac": modality != "expression"}
    parts = {}
    for name, adata in (("rna", rna), ("atac", atac)):
        if package == "scvi":
            part = adata.copy()
            part.X = sparse.csr_matrix(sparse.diags(shown[name].astype(np.float32)) @ adata.X)
        else:
            part = adata[shown[name]].copy()
        parts[name] = part
    mdata = mudata.MuData(parts)
    where = rna.obs_names.get_indexer(mdata.obs_names)
    mdata.obs["modality"] = modality[where]
    return mdata


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train one model; write its latent and what it imputes, in the order of the files."""
    package: Any = importlib.import_module(options.package)  # before torch, as users have it

    import torch
    from clock import EpochClock, peak_mib

    torch.set_num_threads(options.threads)
    package.settings.seed = options.seed
    model_class = importlib.import_module(f"{options.package}.model").MULTIVI
    rna, atac = read_cells(options)
    modality = hide(rna.n_obs, options.seed)
    mdata = make_mudata(rna, atac, modality, options.package)
    modalities = {"rna_layer": "rna", "atac_layer": "atac"}
    model_class.setup_mudata(mdata, batch_key=options.batch_key, modalities=modalities)
    sizes, mixing = {}, {}
    if options.package == "scvi":
        sizes = {"n_genes": rna.n_vars, "n_regions": atac.n_vars}
        # With one batch its classifier gives NaN; cellvae trains none there.
        mixing = {"adversarial_mixing": options.batch_key is not None}
    for name in ("n_hidden", "n_latent"):
        if getattr(options, name) is not None:
            sizes[name] = getattr(options, name)
    model = model_class(mdata, gene_likelihood=options.gene_likelihood, **sizes)
    order = np.random.RandomState(options.seed).permutation(rna.n_obs)
    position = mdata.obs_names.get_indexer(rna.obs_names)
    n_held_out = rna.n_obs // 10
    split = [position[order[n_held_out:]], position[order[:n_held_out]]]
    clock = EpochClock()
    started = time.perf_counter()
    model.train(
        max_epochs=options.epochs,
        lr=options.lr,
        accelerator="cpu",
        early_stopping=options.early_stopping,
        check_val_every_n_epoch=1 if options.early_stopping else options.epochs,
        n_epochs_kl_warmup=options.kl_warmup_epochs,
        datasplitter_kwargs={"external_indexing": split},
        callbacks=[clock],
        enable_progress_bar=False,
        **mixing,
    )
    found = {
        "seconds_per_epoch": float(np.median(clock.train[1:] or clock.train)),
        "seconds_in_train": time.perf_counter() - started,
        "epochs": len(clock.train),
        "peak_mib": peak_mib(),
    }
    for name in ("elbo_validation", "reconstruction_loss_validation"):
        if name in model.history:
            found[name] = float(model.history[name][name].dropna().iloc[-1])
    if not options.time_only:
        batches = options.batch_key is not None
        write_answers(model, Path(options.folder), position, modality, batches=batches)
    return found


def write_answers(
    model: Any, folder: Path, position: np.ndarray, modality: np.ndarray, *, batches: bool
) -> None:
    """Write the latent of all cells, and regions and genes of those in which they are hidden."""
    np.save(folder / "latent.npy", np.asarray(model.get_latent_representation())[position])
    # Decoded as if both had been measured: weights of the other two batches were not learned.
    batch = "paired" if batches else None
    regions = model.get_normalized_accessibility(
        indices=position[modality == "expression"], transform_batch=batch, return_numpy=True
    )
    np.save(folder / "accessibility.npy", np.asarray(regions, dtype=np.float32))
    genes = model.get_normalized_expression(
        indices=position[modality == "accessibility"],
        transform_batch=batch if batch is None else [batch],
        return_numpy=True,
    )
    np.save(folder / "expression.npy", np.asarray(genes, dtype=np.float32))


def score(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, float]:
    """Scores of what was imputed, and of the latent."""
    from cellvae.evaluation import batch_mixing, knn_accuracy

    rna, atac = read_cells(options)
    modality = hide(rna.n_obs, seed)
    latent = np.load(folder / "latent.npy")
    scores = {
        **score_accessibility(
            np.load(folder / "accessibility.npy"), atac.X[modality == "expression"]
        ),
        **score_expression(np.load(folder / "expression.npy"), rna.X[modality == "accessibility"]),
        "modality_mixing": float(batch_mixing(latent, modality)),
    }
    if options.label_key != "none":
        label = rna.obs[options.label_key].astype(str).to_numpy()
        paired = modality == "paired"
        scores["label_knn_accuracy"] = float(knn_accuracy(latent, label))
        scores["label_knn_accuracy_paired"] = float(knn_accuracy(latent[paired], label[paired]))
    return scores


def score_references(options: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Scores of profiles and of a regression, by the name of the reference."""
    rna, atac = read_cells(options)
    modality = hide(rna.n_obs, seed)
    genes, regions = log_fractions(rna.X), log_fractions(atac.X)
    labels = None
    if options.label_key != "none":
        labels = rna.obs[options.label_key].astype(str).to_numpy()
    found: dict[str, dict[str, float]] = {}
    for source, target, adata, hidden, scorer in (
        (genes, regions, atac, "expression", score_accessibility),
        (regions, genes, rna, "accessibility", score_expression),
    ):
        is_hidden = modality == hidden
        imputed = {"mean": np.tile(target[~is_hidden].mean(axis=0), (is_hidden.sum(), 1))}
        if labels is not None:
            means = {k: target[~is_hidden & (labels == k)].mean(axis=0) for k in np.unique(labels)}
            imputed["mean of label"] = np.stack([means[label] for label in labels[is_hidden]])
        imputed["regression"] = regress(source, target, modality == "paired", is_hidden)
        for name, values in imputed.items():
            found[name] = found.get(name, {}) | scorer(values, adata.X[is_hidden])
    return found


def log_fractions(counts: sparse.csr_matrix) -> np.ndarray:
    """Logs of counts, which are scaled to the same total in each cell, [cells, features]."""
    dense = counts.toarray().astype(np.float64)
    total = np.maximum(1, dense.sum(axis=1, keepdims=True))
    logs: np.ndarray = np.log1p(dense / total * np.median(total))
    return logs


def regress(
    source: np.ndarray, target: np.ndarray, paired: np.ndarray, hidden: np.ndarray
) -> np.ndarray:
    """Target of the hidden cells, by a regression on ten principal components of the source."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import RidgeCV

    measured = paired | hidden
    components = np.zeros((len(source), 10))
    components[measured] = PCA(10, random_state=0).fit_transform(source[measured])
    model = RidgeCV(np.logspace(-1, 5, 13)).fit(components[paired], target[paired])
    values: np.ndarray = model.predict(components[hidden])
    return values


def score_accessibility(imputed: np.ndarray, measured: sparse.csr_matrix) -> dict[str, float]:
    """AUROC of the detected regions of a cell, and of the cells that have a region; means."""
    detected = measured.toarray() > 0
    scores = {"auroc_per_cell": float(np.nanmean(auroc(imputed, detected)))}
    chosen = detected.sum(axis=0) >= MIN_DETECTED
    scores["auroc_per_region"] = float(np.nanmean(auroc(imputed.T[chosen], detected.T[chosen])))
    return scores


def score_expression(imputed: np.ndarray, measured: sparse.csr_matrix) -> dict[str, float]:
    """Rank correlation of the genes of a cell, and of the cells for a gene; means."""
    counts = measured.toarray()
    fractions = counts / counts.sum(axis=1, keepdims=True)
    chosen = (counts > 0).sum(axis=0) >= MIN_DETECTED
    return {
        "spearman_per_cell": float(np.nanmean(spearman(imputed, fractions))),
        "spearman_per_gene": float(np.nanmean(spearman(imputed.T[chosen], fractions.T[chosen]))),
    }


def auroc(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Area under the receiver operating characteristic of each row; NaN with one class only."""
    ranks = rankdata(values, axis=1)
    n_true = truth.sum(axis=1)
    n_false = truth.shape[1] - n_true
    with np.errstate(invalid="ignore", divide="ignore"):
        above = (ranks * truth).sum(axis=1) - n_true * (n_true + 1) / 2
        areas: np.ndarray = above / (n_true * n_false)
    return areas


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation of each row; 0 where one is constant."""
    a, b = (rankdata(values, axis=1) for values in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    correlations: np.ndarray = (a * b).sum(axis=1) / np.maximum(norm, 1e-12)
    return correlations


def print_table(
    results: dict[str, list[dict[str, Any]]], baselines: list[dict[str, dict[str, float]]]
) -> None:
    """Print medians, ranges and ratios."""
    for name in results["cellvae"][0]:
        ours, theirs = ([run.get(name, np.nan) for run in results[p]] for p in ("cellvae", "scvi"))
        a, b = np.median(ours), np.median(theirs)
        known = ""
        for reference in baselines[0] if baselines else ():
            values = [each[reference][name] for each in baselines if name in each[reference]]
            known += f", {reference} {np.median(values):.4f}" if values else ""
        print(f"{name:32s} cellvae {a:.4f}, scvi-tools {b:.4f}, ratio {a / b:.3f}{known}")
        print(f"{'':32s} {np.round(ours, 4).tolist()} {np.round(theirs, 4).tolist()}")


if __name__ == "__main__":
    main()

"""A search by `run_autotune` of one package: seconds, and the best validation loss it has found.

Run it with the Python of each package, one after the other; both draw the same kind of trials from
the same space, at random, and stop bad ones by ASHA. `--package cellvae` or `--package scvi`.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import anndata
import ray
from ray import tune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", choices=["cellvae", "scvi"], required=True)
    parser.add_argument("--data", type=Path, required=True, help="file of counts (.h5ad)")
    parser.add_argument("--batch-key", default="batch")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4, help="of a trial that is not stopped")
    parser.add_argument("--cores", type=int, default=2, help="trials at a time, of a core each")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    package = importlib.import_module(arguments.package)
    package.settings.seed = 0
    adata = anndata.read_h5ad(arguments.data)
    model: Any = package.model.SCVI
    model.setup_anndata(adata, batch_key=arguments.batch_key)
    if arguments.package == "cellvae":
        # scvi-tools starts Ray itself, with one trial for each core of the computer.
        ray.init(num_cpus=arguments.cores, include_dashboard=False, log_to_driver=False)
    networks = {
        "n_hidden": tune.choice([64, 128, 256]),
        "n_latent": tune.choice([10, 20, 30]),
        "n_layers": tune.choice([1, 2]),
    }
    training = {
        "max_epochs": arguments.epochs,
        "plan_kwargs": {"lr": tune.loguniform(1e-4, 1e-2)},
    }
    begin = time.perf_counter()
    found = importlib.import_module(f"{arguments.package}.autotune").run_autotune(
        model,
        adata,
        metrics=["elbo_validation"],
        mode="min",
        search_space={"model_params": networks, "train_params": training},
        num_samples=arguments.trials,
        resources={"cpu": 1},
        scheduler="asha",
        scheduler_kwargs={"max_t": arguments.epochs, "grace_period": 1, "reduction_factor": 2},
        searcher="random",
        seed=0,
        logging_dir=tempfile.mkdtemp(),
    )
    seconds = time.perf_counter() - begin
    results = [trial.metrics or {} for trial in found.result_grid]
    scores = sorted(each["elbo_validation"] for each in results if "elbo_validation" in each)
    epochs = sum(each.get("training_iteration", 0) for each in results)
    print(
        f"{arguments.package}: {len(scores)} trials, {epochs} epochs, {seconds:.0f} s; best "
        f"{scores[0]:.2f} nats per cell, median {scores[len(scores) // 2]:.2f}; "
        f"{found.result_grid.num_errors} errors"
    )


if __name__ == "__main__":
    main()

"""Training and inference with either package: python speed_worker.py PACKAGE task.json."""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

begin = time.perf_counter()
package = importlib.import_module(sys.argv[1])
package.model.SCVI  # noqa: B018
import_seconds = time.perf_counter() - begin

import anndata  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from clock import EpochClock, peak_mib  # noqa: E402


def seconds_of(function: Any) -> float:
    """Seconds of a call, the better of two."""
    found = []
    for _ in range(2):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return min(found)


def main() -> None:
    task = json.loads(Path(sys.argv[2]).read_text())
    warnings.simplefilter("ignore")
    torch.set_num_threads(task["threads"])
    package.settings.seed = task["seed"]
    adata = anndata.read_h5ad(task["data"])
    order = np.random.default_rng(task["seed"]).permutation(adata.n_obs)
    n_train = int(0.9 * adata.n_obs)
    train, held_out = order[:n_train], order[n_train:]
    loaded = peak_mib()
    batch = "batch" if "batch" in adata.obs else None
    package.model.SCVI.setup_anndata(adata, batch_key=batch)
    model = package.model.SCVI(adata, gene_likelihood=task["likelihood"])
    clock = EpochClock()
    kwargs: dict[str, Any] = {"check_val_every_n_epoch": 1} if task["validation"] else {}
    if task["validation"]:
        kwargs |= {"early_stopping": True, "early_stopping_patience": 50}
    begin = time.perf_counter()
    model.train(
        max_epochs=task["epochs"],
        accelerator=task["accelerator"],
        batch_size=task["batch_size"],
        datasplitter_kwargs={"external_indexing": [train, held_out, np.zeros(0, dtype=int)]},
        plan_kwargs={"n_epochs_kl_warmup": 400},
        callbacks=[clock],
        enable_progress_bar=False,
        **kwargs,
    )
    fit_seconds = time.perf_counter() - begin
    peak = peak_mib()
    on_gpu = task["accelerator"] == "cuda"
    device_peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    # The first epoch loads what is loaded once.
    epochs = clock.train[1:] or clock.train
    some = held_out[:20_000]
    torch.manual_seed(0)
    elbo = -float(np.mean([float(model.get_elbo(indices=some)) for _ in range(3)]))
    print(
        json.dumps(
            {
                "version": package.__version__,
                "epoch": float(np.median(epochs)),
                "first_epoch": clock.train[0],
                "validation": float(np.median(clock.validation)) if clock.validation else None,
                "fit": fit_seconds,
                "elbo": elbo,
                "peak": peak,
                "beyond data": peak - loaded,
                "device peak": device_peak,
                "steps per s": -(-n_train // task["batch_size"]) / float(np.median(epochs)),
                "latent": seconds_of(lambda: model.get_latent_representation(indices=some)),
                "get_elbo": seconds_of(lambda: model.get_elbo(indices=some)),
                "import": import_seconds,
            }
        )
    )


if __name__ == "__main__":
    main()

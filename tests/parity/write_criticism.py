"""Posterior predictive checks by scvi-tools of draws that are given, written to `criticism.npz`.

Run by hand, in an environment with scvi-tools==1.4.2 (or 1.5.1, which gives the same numbers):
`python tests/parity/write_criticism.py`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.criticism import PosteriorPredictiveCheck
from scvi.criticism._create_criticism_report import _cv_metrics
from sparse import GCXS

N_CELLS, N_GENES, N_DRAWS = 80, 40, 5
INTERVALS = [0.1, 0.3, 0.6, 0.95]


def cells_and_draws() -> tuple[AnnData, np.ndarray]:
    """Counts of four groups of cells, and draws of them that do not quite fit."""
    random = np.random.default_rng(0)
    group = np.arange(N_CELLS) % 4
    means = random.gamma(0.8, 3.0, (4, N_GENES))
    means[:, 0] = 0.0
    counts = random.poisson(means[group] * random.gamma(4.0, 0.25, (N_CELLS, 1)))
    counts[3] = 0
    draws = random.poisson(0.5 * (means[group] + means.mean(axis=0)), (N_DRAWS, N_CELLS, N_GENES))
    obs = pd.DataFrame(
        {"group": pd.Categorical(np.array(["a", "b", "c", "d"])[group])},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    return AnnData(counts.astype(np.float32), obs=obs, var=var), draws.astype(np.float32)


class GivenDraws:
    """A model whose posterior predictive draws are given."""

    def __init__(self, adata: AnnData, draws: np.ndarray) -> None:
        self.adata = adata
        self.draws = draws

    def posterior_predictive_sample(self, *_: Any, **__: Any) -> GCXS:
        """All draws, [cells, genes, draws]."""
        return GCXS.from_numpy(np.moveaxis(self.draws, 0, -1))


def main() -> None:
    warnings.simplefilter("ignore")
    adata, draws = cells_and_draws()
    # Calibration reads the quantiles of the model of this name.
    models = {"model1": GivenDraws(adata, draws)}
    check = PosteriorPredictiveCheck(adata, models, n_samples=N_DRAWS)
    check.coefficient_of_variation("cells")
    check.coefficient_of_variation("features")
    check.zero_fraction()
    check.calibration_error()
    found: dict[str, Any] = {
        "counts": adata.X,
        "draws": draws,
        "group": np.asarray(adata.obs["group"], dtype=str),
        "calibration": float(check.metrics["calibration"].loc["features", "model1"]),
    }
    for name in ("cv_gene", "cv_cell", "zero_fraction"):
        table = check.metrics[name]
        found |= {f"{name} {column}": table[column] for column in ("model1", "Raw")}
    check.calibration_error(INTERVALS)
    found["calibration intervals"] = float(check.metrics["calibration"].loc["features", "model1"])
    for title, kwargs in (
        ("t-test", {}),
        ("t-test averaged", {"n_samples": 3, "p_val_thresh": 0.2, "n_top_genes_fallback": 3}),
        ("wilcoxon", {"de_method": "wilcoxon", "n_samples": 2}),
    ):
        check.differential_expression("group", **kwargs)
        of_method = check.metrics["diff_exp"]
        summary = of_method["summary"].dropna(how="all")
        numbers = summary.drop(columns=["group", "model"])
        found[f"{title} summary"] = numbers.astype(float).to_numpy()
        found[f"{title} columns"] = np.array([str(c) for c in of_method["summary"].columns])
        changes = of_method["lfc_per_model_per_group"]["model1"]["b"]
        found[f"{title} lfc"] = changes.loc[adata.var_names].astype(float).to_numpy()
    report = SimpleNamespace(
        train_indices=np.arange(0, N_CELLS, 2), validation_indices=np.arange(1, N_CELLS, 2)
    )
    renamed = {
        k: v.rename(columns={"model1": "model"}) for k, v in check.metrics.items() if "cv" in k
    }
    renamed["cv_gene"] = renamed["cv_gene"].dropna()
    tables = {
        "cell_wise_cv": _cv_metrics(SimpleNamespace(metrics=renamed), report, cell_wise=True),
        "gene_wise_cv": _cv_metrics(SimpleNamespace(metrics=renamed), report, cell_wise=False),
    }
    found["tables"] = json.dumps(tables)
    arrays = {name: np.asarray(values) for name, values in found.items()}
    np.savez_compressed(Path(__file__).with_name("criticism.npz"), **arrays)


if __name__ == "__main__":
    main()

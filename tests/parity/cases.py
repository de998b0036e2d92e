"""Networks, cells and weights that are compared with scvi-tools; read by `write_pinned.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

N_GENES, N_HIDDEN, N_LATENT = 16, 12, 4
N_CELLS = 24  # one more, the last, has no counts


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of network: options of the model, and what the data has."""

    config: Mapping[str, Any] = field(default_factory=dict)
    n_batch: int = 3
    n_labels: int = 2
    n_cats_per_cov: tuple[int, ...] = ()
    n_continuous: int = 0
    size_factor: bool = False
    n_cells: int = N_CELLS


LIKELIHOODS = {
    f"{likelihood}-{dispersion}": Case(
        config={"gene_likelihood": likelihood, "dispersion": dispersion}
    )
    for likelihood in ("zinb", "nb", "normal")
    for dispersion in ("gene", "gene-batch", "gene-label", "gene-cell")
}
ALL = {"n_cats_per_cov": (2, 4), "n_continuous": 1}
LATENT_LIBRARY = {"use_observed_lib_size": False}
EMBEDDED = {"batch_representation": "embedding"}
READ = {"encode_covariates": True}
SHALLOW = {"deeply_inject_covariates": False, "n_layers": 2}

CASES = LIKELIHOODS | {
    "poisson-gene": Case(config={"gene_likelihood": "poisson"}),
    "poisson-gene-cell": Case(config={"gene_likelihood": "poisson", "dispersion": "gene-cell"}),
    "logistic-normal": Case(config={"latent_distribution": "ln"}),
    "logistic-normal-library": Case(config={"latent_distribution": "ln", **LATENT_LIBRARY}),
    "library": Case(config=LATENT_LIBRARY),
    "library-encoded": Case(config={**LATENT_LIBRARY, **READ, "n_layers": 2}, **ALL),
    "library-softplus": Case(config={**LATENT_LIBRARY, "var_activation": "softplus"}),
    "covariates": Case(**ALL),
    "covariates-encoded": Case(config=READ, **ALL),
    "covariates-deep": Case(config={**READ, "n_layers": 2}, **ALL),
    "covariates-shallow": Case(config={**READ, **SHALLOW}, **ALL),
    "covariates-of-one-value": Case(config=READ, n_cats_per_cov=(1, 4)),
    "shallow": Case(config=SHALLOW),
    "layers": Case(config={"n_layers": 2}),
    "one-batch": Case(n_batch=1),
    "one-batch-encoded": Case(config={**READ, "dispersion": "gene-batch"}, n_batch=1, n_labels=1),
    "size-factor": Case(size_factor=True),
    "size-factor-library": Case(config=LATENT_LIBRARY, size_factor=True),
    "embedding": Case(config=EMBEDDED),
    "embedding-short": Case(config={**EMBEDDED, "batch_embedding_kwargs": {"embedding_dim": 2}}),
    "embedding-covariates": Case(config={**EMBEDDED, "dispersion": "gene-batch"}, **ALL),
    "embedding-encoded": Case(config={**EMBEDDED, **READ}, **ALL),
    "embedding-library": Case(config={**EMBEDDED, **LATENT_LIBRARY, **READ, **SHALLOW}, **ALL),
    "batch-norm-none": Case(config={"use_batch_norm": "none"}),
    "batch-norm-encoder": Case(config={"use_batch_norm": "encoder"}),
    "batch-norm-decoder": Case(config={"use_batch_norm": "decoder"}),
    "layer-norm-both": Case(config={"use_layer_norm": "both", "n_layers": 2}),
    "layer-norm-only": Case(config={"use_layer_norm": "both", "use_batch_norm": "none"}),
    "layer-norm-decoder": Case(config={"use_layer_norm": "decoder"}),
    "raw-counts": Case(config={"log_variational": False, "use_layer_norm": "encoder"}),
    "softplus": Case(config={"var_activation": "softplus"}),
    "empty-cell": Case(n_cells=N_CELLS + 1),
    "empty-cell-nb": Case(config={"gene_likelihood": "nb"}, n_cells=N_CELLS + 1),
}
RUNS = {
    "plain": Case(),
    "everything": Case(
        config={**EMBEDDED, **LATENT_LIBRARY, **READ, "dispersion": "gene-cell", "n_layers": 2},
        **ALL,
    ),
}


def new_inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Cells with many zeros and a few large counts, the last without any; and standard noise."""
    n = N_CELLS + 1
    means = rng.gamma(0.6, 6.0, N_GENES) * rng.uniform(0.3, 3.0, (n, 1))
    counts = rng.poisson(means * rng.gamma(1.5, 1 / 1.5, (n, N_GENES))).astype(np.float32)
    counts[rng.random(counts.shape) < 0.2] = 0
    counts[[0, 3, 9, 17], [5, 0, 11, 5]] = [850, 1234, 300, 4000]
    counts[counts.sum(axis=1) == 0, 0] = 1
    counts[-1] = 0
    return {
        "counts": counts,
        "batch": rng.permutation(np.arange(n) % 3)[:, None],
        "labels": rng.permutation(np.arange(n) % 2)[:, None],
        "size_factor": rng.uniform(0.2, 5.0, (n, 1)).astype(np.float32),
        "codes": rng.permutation(np.arange(n) % 4)[:, None],
        "continuous": rng.normal(size=(n, 1)).astype(np.float32),
        "noise_z": rng.normal(size=(n, N_LATENT)).astype(np.float32),
        "noise_library": rng.normal(size=(n, 1)).astype(np.float32),
    }


def new_weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values that no part of a network leaves without effect."""
    if name.endswith(("running_var", "0.1.weight", "1.1.weight")):
        return rng.uniform(0.5, 1.5, shape)
    if name == "l_encoder.mean_encoder.bias":
        return np.full(shape, 4.0)  # cells of about 50 counts
    if name.endswith((".bias", "running_mean")):
        return rng.normal(0, 0.3, shape)
    if len(shape) == 2 and name.endswith(".weight") and "embedding" not in name:
        return rng.normal(0, shape[1] ** -0.5, shape)
    return rng.normal(0, 1, shape)

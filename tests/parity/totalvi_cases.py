"""Networks and cells of TOTALVI that are compared with scvi-tools; read by `write_totalvi.py`."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

N_CELLS, N_GENES, N_PROTEINS, N_HIDDEN, N_LATENT = 24, 14, 11, 6, 4
N_BATCH, N_LABELS, N_CATS_PER_COV, N_CONTINUOUS = 3, 2, (2, 4), 1
N_STEPS, LEARNING_RATE = 20, 1e-3

BATCHES_LACK = ((True,) * 11, (True,) * 6 + (False,) * 5, (False,) * 2 + (True,) * 9)
PANELS_LACK = ((True,) * 8 + (False,) * 3, (False,) + (True,) * 10)

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "zinb": {"gene_likelihood": "zinb"},
    "by batch": {"gene_dispersion": "gene-batch", "protein_dispersion": "protein-batch"},
    "by label": {"gene_dispersion": "gene-label", "protein_dispersion": "protein-label"},
    "logistic": {"latent_distribution": "ln"},
    "library": {"use_observed_lib_size": False, "gene_likelihood": "zinb"},
    "size factor": {},
    "covariates": {"n_layers_decoder": 2},
    "not encoded": {"encode_covariates": False},
    "missing": {},
    "panels": {"use_observed_lib_size": False},
    "exp": {"extra_decoder_kwargs": {"activation_function_bg": "exp"}},
    "layer norm": {"use_batch_norm": "none", "use_layer_norm": "both"},
    "raw": {"log_variational": False, "use_batch_norm": "encoder"},
}
"""Options of the network by the name of the case."""
WITH_COVARIATES = ("covariates", "not encoded", "missing")
WITH_SIZE_FACTOR = ("size factor",)
MEASURED = {"missing": BATCHES_LACK, "panels": PANELS_LACK}
RUNS = ("plain", "library", "missing")
"""Cases of which training steps are compared too."""


def new_inputs() -> dict[str, np.ndarray]:
    """Cells with many zeros and a few large counts; and standard noise."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.6, 6.0, (N_CELLS, N_GENES))).astype(np.float32)
    counts[[0, 3], [5, 0]] = [850, 1234]
    proteins = rng.poisson(rng.gamma(0.8, 30.0, (N_CELLS, N_PROTEINS))).astype(np.float32)
    return {
        "counts": counts,
        "proteins": proteins,
        "batch": rng.permutation(np.arange(N_CELLS) % N_BATCH)[:, None],
        "panel": rng.permutation(np.arange(N_CELLS) % 2)[:, None],
        "labels": rng.permutation(np.arange(N_CELLS) % N_LABELS)[:, None],
        "size_factor": rng.uniform(0.2, 5.0, (N_CELLS, 1)).astype(np.float32),
        "categorical": np.stack([rng.integers(0, n, N_CELLS) for n in N_CATS_PER_COV], axis=1),
        "continuous": rng.normal(size=(N_CELLS, 1)).astype(np.float32),
    }


def new_noise(shape: tuple[int, ...], step: int = 0) -> np.ndarray:
    """Standard noise of a latent variable, which its last dimension determines."""
    rng = np.random.default_rng((step, shape[-1]))
    return rng.normal(size=shape).astype(np.float32)


def new_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values that no part of a network leaves without effect."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var") or name == "library_log_vars":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name in ("encoder.l_gene_mean_encoder.bias", "library_log_means"):
        return np.full(shape, 4.0, dtype=np.float32)
    if name in ("log_per_batch_efficiency", "background_pro_log_beta"):
        return rng.normal(0, 0.4, shape).astype(np.float32)
    if name.startswith("decoder.py_back_mean_log_beta"):
        # No rate is so small that the constant matters that scvi-tools adds to it.
        return rng.normal(-1.5 if len(shape) == 1 else 0, 0.1, shape).astype(np.float32)
    if name.endswith((".bias", "running_mean")):
        return rng.normal(0, 0.3, shape).astype(np.float32)
    if len(shape) == 2 and name.endswith(".weight"):
        return rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
    return rng.normal(1, 0.5, shape).astype(np.float32)


N_LABELLED, N_KNOWN_LABELS = 8, 3
LABEL_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "missing": {"linear_classifier": True},
    "library": {"classifier_parameters": {"logits": False, "n_layers": 1}},
}
"""Options of the classifier of TOTALANVI by the name of the case."""


def new_labels() -> np.ndarray:
    """Known labels of the cells of TOTALANVI, [cells, 1]."""
    return np.random.default_rng(1).integers(0, N_KNOWN_LABELS, (N_CELLS, 1))

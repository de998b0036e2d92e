"""Notebooks written for scvi-tools run after `import cellvae as scvi`, and find what they find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.trains

NOTEBOOKS = Path(__file__).with_name("notebooks")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
B_GENES, MONOCYTE_GENES = ["CD74", "CD37", "CD83"], ["TYROBP", "FCER1G", "TIMP1"]
WORDS = {
    "basics": {
        "latent": [2700, 10],
        "normalized": [2700, 800],
        "history": ["elbo_train", "elbo_validation", "reconstruction_loss_validation"],
        "epochs": 8,
        "fell": True,
        "same": True,
        "n_batch": 1,
        "batches": [0],
    },
    "integration": {
        "distribution": [None, True],
        "corrected": [50, 5],
        "predictive": [20, 1287],
        "columns": True,
        "checkpoints": True,
        "n_batch": 8,
        "covariates": ["half"],
    },
    "labels": {"columns": True},
    "expression": {
        "columns": [
            "bayes_factor", "comparison", "group1", "lfc_mean", "lfc_median", "proba_de",
            "raw_mean1",
        ],
        "vanilla": ["bayes_factor", "proba_m1", "raw_mean1", "scale1"],
        "found": ["CD79A", "MS4A1", "CD74", "HLA-DRA"],
        "rows": 1000,
    },
    "criticism": {
        "metrics": ["calibration", "cv_cell", "cv_gene", "diff_exp"],
        "columns": ["gene_f1", "lfc_mae", "n_cells", "pr_auc", "roc_auc"],
        "cells": [675, 2],
        "changes": [["approx", "raw"], 300],
        "card": {"cell_wise_cv": True, "gene_wise_cv": True, "diff_exp": True},
        "header": ["Metric", "Training Value", "Validation Value"],
        "varm": [300, 10],
    },
    "interpretability": {
        "columns": [
            "feature", "feature_idx", "modality", "attribution_mean", "attribution_std", "cells",
        ],
        "rows": 600,
        "features": True,
        "cells": [2700, 344],
        "modality": "None",
        "falls": True,
        "markers": ["CD74", "CD79A", "HLA-DPB1", "HLA-DRA", "HLA-DRB1"],
        "soft": [[20, 10], 600],
        "sums": True,
    },
    "mapping": {"genes": True, "order": True, "kept": True, "batches": 8},
    "peaks": {
        "regions": 760,
        "same": True,
        "accessible": [[3, 760], [1178, 7]],
        "shares": True,
        "factors": [1178, 760],
        "columns": [
            "bayes_factor", "effect_size", "emp_effect", "est_prob1", "is_da_fdr", "prob_da",
        ],
        "rows": [760, 760],
    },
    "loadings": {
        "latent": [1533, 8],
        "loadings": [1287, 8],
        "names": True,
        "genes": True,
        "n_latent": 8,
        "checks": 6,
        "pictures": [True, True, True],
        "myeloid": True,
    },
    "minified": {
        "before": None,
        "type": "latent_posterior_parameters",
        "shape": True,
        "counts": 0,
        "moved": True,
        "drawn": True,
        "corrected": [5, 1287],
        "library": True,
        "refused": True,
    },
    "seeds": {
        "seeds": 160,
        "labeled": 160,
        "labels": ["B", "Monocyte", "NK", "T"],
        "unlabeled": "Unknown",
        "column": "seed_labels",
        "pretrained": True,
        "latent": [2044, 15],
    },
    "modes": {
        "variable": [
            "expected_fraction_zeros", "highly_variable", "observed_fraction_zeros",
            "prob_zero_enriched_nbatches", "prob_zero_enrichment", "prob_zero_enrichment_rank",
        ],
        "selected": 500,
        "table": [1287, 6],
        "markers": [*B_GENES, *MONOCYTE_GENES],
        "vanilla_up": B_GENES,
        "vanilla_down": MONOCYTE_GENES,
        "change_up": B_GENES,
        "change_down": MONOCYTE_GENES,
        "called": [*B_GENES, *MONOCYTE_GENES],
        "corrected_up": B_GENES,
        "corrected_down": MONOCYTE_GENES,
    },
}  # fmt: skip
"""What each notebook has to say, whatever the package."""
NUMBERS = {
    "basics": {"sum": 2e3, "elbo": 40, "reconstruction": 40},
    "integration": {"elbo": 40},
    "labels": {"right": 0.07},
    "expression": {"raw": 1e-3},
    "criticism": {
        "obs": 0.02, "calibration": 2e-3, "cv": 0.15, "f1": 0.08, "pearson": 0.05, "auc": 0.06,
    },
    "interpretability": {"right": 0.03, "mean": 2.0},
    "mapping": {"right": 0.07},
    "peaks": {"seen": 1e-6, "neighbours": 0.06, "depth": 0.05},
    "loadings": {"apart": 0.15},
    "minified": {},
    "seeds": {"seeds_right": 0, "right": 0.05},
    "modes": {"observed": 1e-6, "expected": 1e-6, "zeros": 1e-6, "raw": 1e-3},
}  # fmt: skip
"""Figures of both packages, and by how much they may differ in so few epochs."""


def write_script(name: str, package: str, folder: Path) -> Path:
    """Notebook with one import line for a package."""
    code = (NOTEBOOKS / f"{name}.py").read_text()
    assert code.count("import scvi\n") == 1
    script = folder / f"{name}.py"
    script.write_text(code.replace("import scvi\n", f"import {package}\n"))
    return script


def run_peer(name: str, python: str, data: Path, folder: Path) -> dict[str, Any]:
    """What a notebook prints with scvi-tools."""
    done = subprocess.run(
        [python, write_script(name, "scvi", folder), data, folder],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def own(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], dict[str, Any]]]:
    """What notebooks print with this package, each run once."""
    found: dict[str, dict[str, Any]] = {}

    def run(name: str) -> dict[str, Any]:
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            script, output = write_script(name, "cellvae as scvi", folder), folder / "output"
            assert process.stdin is not None and process.stdout is not None
            print(json.dumps([*map(str, (script, output, shared_data, folder))]),
                  file=process.stdin, flush=True)  # fmt: skip
            code = process.stdout.readline()
            assert code == "0\n", output.read_text()[-3000:]
            found[name] = json.loads(output.read_text().splitlines()[-1])
        return found[name]

    command = [sys.executable, str(Path(__file__).with_name("fork_scripts.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        yield run


def check(name: str, found: dict[str, Any]) -> None:
    """Check what a notebook has to say."""
    for word, expected in WORDS[name].items():
        value = found[word]
        if word == "distribution":
            value = [None, value[1]]
        assert value == expected, word


@pytest.mark.parametrize("name", WORDS)
def test_a_notebook_runs_after_one_import_line(name: str, own: Any) -> None:
    found = own(name)
    check(name, found)
    if name == "basics":
        assert found["sum"] == pytest.approx(1e4, rel=1e-4)
    if name == "labels":
        assert found["right"] > 0.8
    if name == "interpretability":
        assert found["right"] > 0.95
    if name == "peaks":
        assert found["neighbours"] > 0.2 and found["depth"] > 0.8  # 0.1 of neighbours by chance
    if name == "loadings":
        assert found["apart"] > 0.7
    if name == "seeds":
        assert found["right"] > 0.8
    if name == "modes":
        assert len(found["comparisons"]) == 8
    if name == "mapping":
        assert found["right"] > 0.7 and found["moved"] < 1e-5


@pytest.mark.parametrize("name", WORDS)
def test_scvi_tools_says_the_same(name: str, own: Any, shared_data: Path, tmp_path: Path) -> None:
    peer = os.environ.get("CELLVAE_PEER_PYTHON")
    if peer is None:
        pytest.skip("CELLVAE_PEER_PYTHON does not name a Python with scvi-tools")
    theirs = run_peer(name, peer, shared_data, tmp_path)
    check(name, theirs)
    assert own(name).keys() == theirs.keys()
    for word, tolerance in NUMBERS[name].items():
        assert own(name)[word] == pytest.approx(theirs[word], abs=tolerance), word

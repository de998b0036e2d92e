"""Posterior predictive checks of draws that are given, against those of scvi-tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.criticism import PosteriorPredictiveCheck
from cellvae.errors import DataWarning
from cellvae.inference.criticism import calibration, ppc_statistics
from cellvae.inference.criticism.model_card_tables import card_tables
from cellvae.model import SCVI


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    """What `write_criticism.py` wrote."""
    with np.load(Path(__file__).parent / "criticism.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture
def check(
    theirs: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> PosteriorPredictiveCheck:
    """Check whose draws are those of the file, whatever the model."""
    counts, draws = theirs["counts"], torch.from_numpy(theirs["draws"])
    adata = AnnData(
        counts,
        obs=pd.DataFrame(
            {"group": theirs["group"]}, index=[f"cell{i}" for i in range(len(counts))]
        ),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(counts.shape[1])]),
    )
    adata.obs["number"] = np.arange(len(counts), dtype=np.float64)
    with pytest.warns(DataWarning, match="without any"):
        SCVI.setup_anndata(adata, continuous_covariate_keys=["number"])
    model = SCVI(adata, n_hidden=4)
    model.is_trained = True

    def given(module: Any, batch: Any, n_samples: int, output: str) -> Iterator[torch.Tensor]:
        cells = batch.continuous[:, 0].long()
        return iter(draws[:n_samples, cells])

    for module in (ppc_statistics, calibration):
        monkeypatch.setattr(module, "iter_predictive_draws", given)
    return PosteriorPredictiveCheck(
        adata, {"model": model}, n_samples=len(draws), batch_size=17, silent=True
    )


def test_variation_of_genes_and_cells(
    check: PosteriorPredictiveCheck, theirs: dict[str, np.ndarray]
) -> None:
    for name, dim in (("cv_gene", "cells"), ("cv_cell", "features")):
        table = check.coefficient_of_variation(dim)  # type: ignore[arg-type]
        # They square counts in single precision.
        np.testing.assert_allclose(table["Raw"], theirs[f"{name} Raw"], rtol=2e-5)
        np.testing.assert_allclose(table["model"], theirs[f"{name} model1"], rtol=2e-5)
    assert check.metrics["cv_gene"].loc["gene0", "Raw"] == 0
    assert np.isnan(check.metrics["cv_gene"].loc["gene0", "model"])


def test_zero_fraction_is_what_theirs_leaves(
    check: PosteriorPredictiveCheck, theirs: dict[str, np.ndarray]
) -> None:
    table = check.zero_fraction()
    np.testing.assert_allclose(table["Raw"], 1 - theirs["zero_fraction Raw"], atol=1e-12)
    np.testing.assert_allclose(table["model"], 1 - theirs["zero_fraction model1"], atol=1e-12)


def test_calibration_error(check: PosteriorPredictiveCheck, theirs: dict[str, np.ndarray]) -> None:
    assert check.calibration_error()["model"] == pytest.approx(float(theirs["calibration"]))
    assert check.metrics["calibration"].loc["features", "model"] == pytest.approx(
        float(theirs["calibration"])
    )
    given = check.calibration_error([0.1, 0.3, 0.6, 0.95])
    assert given["model"] == pytest.approx(float(theirs["calibration intervals"]))


@pytest.mark.parametrize(
    ("title", "kwargs"),
    [
        ("t-test", {}),
        ("t-test averaged", {"n_samples": 3, "p_val_thresh": 0.2, "n_top_genes_fallback": 3}),
        ("wilcoxon", {"de_method": "wilcoxon", "n_samples": 2}),
    ],
)
def test_differential_expression(
    title: str,
    kwargs: dict[str, Any],
    check: PosteriorPredictiveCheck,
    theirs: dict[str, np.ndarray],
) -> None:
    table = check.differential_expression("group", **kwargs)
    columns = theirs[f"{title} columns"].tolist()
    assert table.columns[: len(columns)].tolist() == columns
    numbers = table[columns].drop(columns=["group", "model"]).to_numpy(float)
    np.testing.assert_allclose(numbers, theirs[f"{title} summary"], rtol=1e-5)
    assert table["group"].tolist() == ["a", "b", "c", "d"]
    changes = check.metrics["diff_exp"]["lfc_per_model_per_group"]["model"]["b"]
    assert changes.columns.tolist() == ["raw", "approx"]
    by_gene = changes.loc[list(check.genes)]
    np.testing.assert_allclose(by_gene, theirs[f"{title} lfc"], rtol=1e-4, atol=1e-4)
    assert check.metrics["diff_exp"]["summary"] is table


def values_of(table: str) -> list[list[str]]:
    """Cells of the rows of a table in Markdown."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return [row for row in rows if not row[0].startswith("-")]


def test_tables_of_model_cards(
    check: PosteriorPredictiveCheck, theirs: dict[str, np.ndarray]
) -> None:
    check.coefficient_of_variation("cells")
    check.coefficient_of_variation("features")
    even = np.arange(len(check.cells)) % 2 == 0
    ours = card_tables(check, "model", {"Training": even, "Validation": ~even})
    for name, text in json.loads(str(theirs["tables"])).items():
        expected, found = values_of(text), values_of(ours[name])
        assert found[0] == expected[0]
        for row, other in zip(found[1:], expected[1:], strict=True):
            assert row[0] == other[0]
            numbers, others = ([float(x) for x in r[1:]] for r in (row, other))
            assert numbers == pytest.approx(others, abs=0.0051)
    assert ours["diff_exp"] == ""

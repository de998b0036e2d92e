"""Checks of regions and proteins, over the cells and panels in which they were measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from cellvae.errors import InvalidOptionError
from cellvae.inference import PosteriorPredictiveCheck, create_criticism_report
from cellvae.inference.criticism.ppc_statistics import iter_predictive_draws
from cellvae.model import MULTIVI, TOTALVI

pytestmark = pytest.mark.trains

N_CELLS, N_DRAWS = 40, 6
SIZES = {"rna": 9, "accessibility": 12, "protein": 11}
MODALITIES = {"rna": "rna", "accessibility": "atac", "protein": "adt"}
LEVELS = [0.1, 0.3, 0.7, 0.9]


def measured_counts() -> dict[str, np.ndarray]:
    """Counts of each output; two proteins are not in the panel of the batch `b`."""
    rng = np.random.default_rng(0)
    counts = {
        "rna": rng.poisson(3, (N_CELLS, 9)) + 1.0,
        "accessibility": rng.poisson(0.8, (N_CELLS, 12)) + 0.0,
        "protein": rng.poisson(rng.gamma(2, 5, 11), (N_CELLS, 11)) + 1.0,
    }
    counts["accessibility"][:, 3] = 2
    counts["rna"][:8] = 0
    counts["accessibility"][8:20] = 0
    counts["protein"][1::2, :2] = 0
    return {name: values.astype(np.float32) for name, values in counts.items()}


def masks() -> dict[str, np.ndarray]:
    """Which values were measured, [cells, features]."""
    found = {name: np.ones((N_CELLS, n), dtype=bool) for name, n in SIZES.items()}
    found["rna"][:8], found["accessibility"][8:20] = False, False
    found["protein"][1::2, :2] = False
    return found


def make_mudata() -> MuData:
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)])
    tables = {}
    for name, values in measured_counts().items():
        var = pd.DataFrame(index=[f"{name}{i}" for i in range(values.shape[1])])
        table = AnnData(sparse.csr_matrix(values), obs=obs.copy(), var=var)
        table.layers["twice"] = table.X * 2
        tables[MODALITIES[name]] = table
    mdata = MuData(tables)
    mdata.obs["batch"] = pd.Categorical(["a", "b"] * (N_CELLS // 2))
    mdata.obs["group"] = pd.Categorical(np.array(["x", "y"])[np.arange(N_CELLS) // 2 % 2])
    return mdata


@pytest.fixture(scope="module")
def multivi() -> MULTIVI:
    """Model of cells of which 8 lack genes and 12 regions."""
    mdata = make_mudata()
    layers = {"rna_layer": "rna", "atac_layer": "atac", "protein_layer": "adt"}
    MULTIVI.setup_mudata(mdata, batch_key="batch", modalities=layers)
    torch.manual_seed(0)
    model = MULTIVI(mdata, n_hidden=8, n_latent=3)
    model.train(2, seed=0, batch_size=20, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def totalvi() -> TOTALVI:
    """Model of cells with genes, in two panels."""
    counts, whole = measured_counts(), make_mudata()
    adata = AnnData(counts["rna"] + 1, obs=whole.obs[["batch", "group"]])
    adata.obsm["adt"] = pd.DataFrame(counts["protein"], index=adata.obs_names).add_prefix("p")
    adata.obsm["adt_twice"] = adata.obsm["adt"] * 2
    TOTALVI.setup_anndata(adata, protein_expression_obsm_key="adt", batch_key="batch")
    torch.manual_seed(0)
    with pytest.warns(match="every protein in every panel"):
        model = TOTALVI(adata, n_latent=3)
    model.train(2, seed=0, batch_size=20, accelerator="cpu", enable_progress_bar=False)
    return model


CASES = [
    ("multivi", "rna"),
    ("multivi", "accessibility"),
    ("multivi", "protein"),
    ("totalvi", "protein"),
]


@pytest.fixture(params=CASES, ids=[f"{model} {output}" for model, output in CASES])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str, np.ndarray, np.ndarray]]:
    """Model, output, measured values and their mask, both of the cells that have it."""
    name, output = request.param
    model, mask = request.getfixturevalue(name), masks()[output]
    values = measured_counts()[output]
    if output == "accessibility":
        values = (values > 0).astype(np.float32)
    cells = mask.any(axis=1)
    yield model, output, values[cells], mask[cells]


def make_check(model: Any, output: str, **kwargs: Any) -> PosteriorPredictiveCheck:
    return PosteriorPredictiveCheck(
        model.adata, {"a": model}, n_samples=N_DRAWS, output=output, silent=True, **kwargs
    )


def draws_of(model: Any, output: str, cells: torch.Tensor, n: int = N_DRAWS) -> np.ndarray:
    """Draws of all values, with the random numbers of a check, [draws, cells, features]."""
    torch.manual_seed(5)
    with torch.inference_mode():
        batch = model.rows.take(cells)
        return np.stack([*iter_predictive_draws(model.module, batch, n, output)])


def test_statistics_are_those_of_loops_over_what_was_measured(case: Any) -> None:
    model, output, values, mask = case
    check = make_check(model, output)
    assert check.genes == model.registration.axes[AXIS[output]].features
    np.testing.assert_array_equal(check.cells, np.flatnonzero(masks()[output].any(axis=1)))
    torch.manual_seed(5)
    found = {
        "zeros": check.zero_fraction(),
        "genes": check.coefficient_of_variation("cells"),
        "cells": check.coefficient_of_variation("features"),
    }
    draws = draws_of(model, output, check.cells)
    for column, samples in (("Raw", values[None]), ("a", draws)):
        for j in range(values.shape[1]):
            seen = samples[:, mask[:, j], j].astype(float)
            assert found["zeros"][column].iloc[j] == pytest.approx((seen == 0).mean())
            means = seen.mean(axis=1)
            if (means > 0).all():
                wanted = (seen.std(axis=1) / means).mean()
                assert found["genes"][column].iloc[j] == pytest.approx(wanted, rel=1e-5)
        for i in range(len(values)):
            seen = samples[:, i, mask[i]].astype(float)
            with np.errstate(invalid="ignore"):
                wanted = np.nanmean(seen.std(axis=1) / seen.mean(axis=1))
            assert found["cells"][column].iloc[i] == pytest.approx(wanted, rel=1e-5)


AXIS = {"rna": "genes", "accessibility": "regions", "protein": "proteins"}


def test_interval_errors_are_those_of_quantiles_of_kept_draws(case: Any) -> None:
    model, output, values, mask = case
    check = make_check(model, output)
    torch.manual_seed(5)
    error = check.calibration_error(LEVELS)["a"]
    bounds = np.quantile(draws_of(model, output, check.cells).astype(float), LEVELS, axis=0)
    wanted = 0.0
    for low, high, level in ((0, 3, 0.8), (1, 2, 0.4)):
        inside = (values >= bounds[low]) & (values <= bounds[high])
        wanted += (inside[mask].mean() - level) ** 2
    assert error == pytest.approx(wanted, rel=1e-6)


def test_draws_are_zero_as_often_as_the_likelihood_says(case: Any) -> None:
    model, output, values, _ = case
    cells = torch.arange(20, 30)
    draws = draws_of(model, output, cells, 3_000)
    with torch.inference_mode():
        batch = model.rows.take(cells)
        latent = model.module.sample_latent(model.module.encode(batch), 3_000)
        decoded = model.module.decode(latent, batch)[output]
        zero = decoded.log_prob(torch.zeros(10, values.shape[1])).exp().mean(dim=0).numpy()
    np.testing.assert_allclose((draws == 0).mean(axis=0), zero, atol=0.05)
    assert set(np.unique(draws)) == {0.0, 1.0} or output != "accessibility"


def test_ranks_of_measured_values_are_counted(case: Any) -> None:
    model, output, values, mask = case
    check = make_check(model, output)
    torch.manual_seed(5)
    table = check.calibration([0.2, 0.8])
    draws = draws_of(model, output, check.cells)
    below, equal = (draws < values).sum(axis=0)[mask], (draws == values).sum(axis=0)[mask]
    ties = np.random.default_rng(0).random((200, len(below)))
    ranks = (below + ties * (equal + 1)) / (N_DRAWS + 1)
    for level in (0.2, 0.8):
        wanted = (np.abs(2 * ranks - 1) < level).mean()
        assert table.loc[level, "a"] == pytest.approx(wanted, abs=0.08)


def test_layers_and_modalities_are_found(multivi: MULTIVI, totalvi: TOTALVI) -> None:
    of_model = make_check(multivi, "protein").coefficient_of_variation()["Raw"]
    of_layer = PosteriorPredictiveCheck(
        multivi.adata, {"a": multivi}, "twice", n_samples=1, modality="adt", silent=True
    )
    assert of_layer.output.name == "protein"
    np.testing.assert_allclose(of_layer.coefficient_of_variation()["Raw"], of_model)
    regions = PosteriorPredictiveCheck(
        multivi.adata, {"a": multivi}, "twice", n_samples=1, modality="atac", silent=True
    )
    wanted = make_check(multivi, "accessibility").zero_fraction()["Raw"]
    np.testing.assert_allclose(regions.zero_fraction()["Raw"], wanted)
    entry = make_check(totalvi, "protein", count_layer_key="adt_twice")
    assert entry.output.raw is not None
    twice = entry.output.raw.take(torch.arange(3))
    np.testing.assert_array_equal(twice, 2 * measured_counts()["protein"][:3])


def test_what_a_model_lacks_is_refused(multivi: MULTIVI, totalvi: TOTALVI) -> None:
    with pytest.raises(InvalidOptionError, match="Did you mean 'protein'"):
        make_check(multivi, "proteins")
    with pytest.raises(InvalidOptionError, match="'rna', 'atac', 'adt'.*got 'atc'"):
        make_check(multivi, None, modality="atc")
    with pytest.raises(InvalidOptionError, match="output that of it; got 'atac'"):
        make_check(multivi, "rna", modality="atac")
    with pytest.raises(InvalidOptionError, match=r"mdata\[modality\]"):
        make_check(totalvi, None, modality="adt")
    with pytest.raises(InvalidOptionError, match="'accessibility' was measured; got 3 without"):
        make_check(multivi, "accessibility", indices=[9, 10, 11])


def test_a_report_has_the_words_of_its_output(multivi: MULTIVI, tmp_path: Path) -> None:
    text = create_criticism_report(
        multivi,
        n_samples=2,
        output="accessibility",
        label_key="group",
        save_folder=tmp_path,
        silent=True,
    )
    assert "28 cells, 12 regions, 2 draws" in text
    assert "## Fraction of zeros of regions" in text
    assert "Regions that differ between a group" in text
    assert "genes" not in text.replace("gene_f1", "")
    assert (tmp_path / "criticism_report.png").exists()
    table = multivi.adata.mod["atac"]
    assert np.isfinite(table.var["cv_gene_ratio_accessibility"]).any()
    assert [*table.varm["lfc_raw_accessibility"].columns] == ["x", "y"]
    ratio = multivi.adata.obs["cv_cell_ratio_accessibility"]
    measured = masks()["accessibility"].any(axis=1)
    # Two draws of a cell may have no region at all, and no ratio either.
    assert ratio[~measured].isna().all() and ratio[measured].notna().mean() > 0.8


def test_proteins_in_obsm_get_no_columns(totalvi: TOTALVI) -> None:
    before = {*totalvi.adata.var}
    text = create_criticism_report(
        totalvi, n_samples=2, output="protein", skip_metrics=["diff_exp"], silent=True
    )
    assert "40 cells, 11 proteins" in text
    assert {*totalvi.adata.var} == before
    assert "cv_cell_ratio_protein" in totalvi.adata.obs

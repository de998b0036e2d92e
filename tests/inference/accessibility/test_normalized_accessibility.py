"""Accessibility: what the network says, cut off, in the order asked; and what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from cellvae.errors import InvalidOptionError, NotTrainedError, UnknownKeyError
from cellvae.model import PEAKVI, POISSONVI

pytestmark = pytest.mark.trains

N_CELLS, N_REGIONS = 90, 20
QUICK = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False, "early_stopping": False}


def blood() -> AnnData:
    """Counts of regions in two kinds of cells, each with five regions of its own."""
    random = np.random.default_rng(0)
    kind = np.arange(N_CELLS) % 2
    chance = np.full((2, N_REGIONS), 0.3)
    chance[0, :5], chance[1, 5:10] = 0.9, 0.9
    chance[1, :5], chance[0, 5:10] = 0.05, 0.05
    found = random.random((N_CELLS, N_REGIONS)) < chance[kind]
    counts = found * random.integers(1, 4, found.shape)
    names = [f"c{i}" for i in range(N_CELLS)]
    obs = pd.DataFrame({"kind": np.array(["a", "b"])[kind]}, index=names)
    obs["batch"] = np.array(["b0", "b1", "b2"])[np.arange(N_CELLS) % 3]
    var = pd.DataFrame(index=[f"chr1:{i}" for i in range(N_REGIONS)])
    return AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


@pytest.fixture(scope="module", params=[PEAKVI, POISSONVI])
def model(request: pytest.FixtureRequest) -> Any:
    adata = blood()
    request.param.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    made = request.param(adata, n_hidden=16, n_latent=3)
    made.train(max_epochs=60, **QUICK, plan_kwargs={"lr": 0.01}, batch_size=30)
    return made


@pytest.fixture(scope="module")
def peaks() -> Any:
    adata = blood()
    PEAKVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    made = PEAKVI(adata, n_hidden=16, n_latent=3)
    made.train(max_epochs=60, **QUICK, plan_kwargs={"lr": 0.01}, batch_size=30)
    return made


def by_hand(model: Any, factors: bool) -> np.ndarray:
    """What the network says of all cells at the mean of the latent."""
    batch = model.rows_of_model().take(torch.arange(N_CELLS))
    with torch.no_grad():
        latent = model.module.encode(batch)
        decoded = model.module.decode(latent._replace(sample=latent.posterior.loc), batch)[
            "accessibility"
        ]
        return np.asarray(decoded.get_normalized("mu" if factors else "scale"))


def test_accessibility_is_what_the_network_says(peaks: Any) -> None:
    found = peaks.get_normalized_accessibility(batch_size=7)
    np.testing.assert_allclose(found, by_hand(peaks, False), rtol=1e-5)
    assert found.index.equals(peaks.adata.obs_names)
    assert found.columns.equals(peaks.adata.var_names)
    detected = peaks.get_normalized_accessibility(normalize_cells=True, normalize_regions=True)
    np.testing.assert_allclose(detected, by_hand(peaks, True), rtol=1e-5)
    depth = peaks.get_library_size_factors()
    np.testing.assert_array_equal(depth, peaks.get_depth_factors())
    cells = peaks.get_normalized_accessibility(normalize_cells=True)
    np.testing.assert_allclose(cells, found * depth[:, None], rtol=1e-5)
    regions = peaks.get_normalized_accessibility(normalize_regions=True, return_numpy=True)
    np.testing.assert_allclose(regions, found * peaks.get_region_factors(), rtol=1e-5)


def test_values_below_a_threshold_are_left_out(peaks: Any) -> None:
    whole = peaks.get_normalized_accessibility(return_numpy=True)
    kept = peaks.get_normalized_accessibility(threshold=0.4, return_numpy=True, batch_size=11)
    assert kept.format == "csr" and kept.shape == whole.shape
    np.testing.assert_allclose(kept.toarray(), np.where(whole >= 0.4, whole, 0), rtol=1e-5)
    assert 0 < kept.nnz == (whole >= 0.4).sum() < whole.size
    table = peaks.get_normalized_accessibility(threshold=0.4, region_list=["chr1:7", "chr1:2"])
    assert table.columns.tolist() == ["chr1:7", "chr1:2"]
    assert all(isinstance(kind, pd.SparseDtype) for kind in table.dtypes)
    np.testing.assert_allclose(table.to_numpy(), kept[:, [7, 2]].toarray(), rtol=1e-5)


def test_cells_batches_and_draws_are_those_asked_for(peaks: Any) -> None:
    whole = peaks.get_normalized_accessibility()
    some = peaks.get_normalized_accessibility(indices=["c5", "c2"])
    np.testing.assert_allclose(some, whole.loc[["c5", "c2"]], rtol=1e-5)
    moved = peaks.get_normalized_accessibility(transform_batch="b1")
    own = (peaks.adata.obs["batch"] == "b1").to_numpy()
    np.testing.assert_allclose(moved[own], whole[own], rtol=1e-5)
    assert not np.allclose(moved[~own], whole[~own], rtol=1e-3)
    mean = peaks.get_normalized_accessibility(transform_batch=["b0", "b1"])
    other = peaks.get_normalized_accessibility(transform_batch="b0")
    np.testing.assert_allclose(mean, (moved + other) / 2, rtol=1e-5)
    torch.manual_seed(0)
    drawn = peaks.get_normalized_accessibility(n_samples_overall=200, use_z_mean=False)
    assert drawn.shape == (200, N_REGIONS) and drawn.index.isin(peaks.adata.obs_names).all()
    assert drawn.index.duplicated().any()


def test_regions_of_a_kind_are_found(model: Any) -> None:
    torch.manual_seed(0)
    table = model.differential_accessibility(groupby="kind", group1="a", group2="b")
    assert table.columns[:3].tolist() == ["prob_da", "is_da_fdr", "bayes_factor"]
    assert table["prob_da"].is_monotonic_decreasing
    own = [f"chr1:{i}" for i in range(10)]
    assert set(table.index[:10]) == set(own)
    assert np.sign(table.loc[own, "effect_size"]).tolist() == [-1] * 5 + [1] * 5
    assert (table["effect_size"] == table["est_prob2"] - table["est_prob1"]).all()
    found = np.asarray(model.adata.X.todense()) > 0
    kind = (model.adata.obs["kind"] == "a").to_numpy()
    rates = table.loc[model.adata.var_names]
    np.testing.assert_allclose(rates["emp_prob1"], found[kind].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(rates["emp_prob2"], found[~kind].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        table["emp_effect"], table["emp_prob2"] - table["emp_prob1"], atol=1e-6
    )
    assert table["comparison"].unique().tolist() == ["a vs b"]


def test_the_estimate_is_the_mean_over_draws_of_the_cells(peaks: Any) -> None:
    torch.manual_seed(0)
    table = peaks.differential_accessibility(idx1="kind == 'a'", n_samples_overall=20_000)
    draws = [peaks.get_normalized_accessibility(use_z_mean=False) for _ in range(40)]
    mean = sum(draws) / len(draws)
    kind = (peaks.adata.obs["kind"] == "a").to_numpy()
    expected = mean[kind].mean()
    np.testing.assert_allclose(table.loc[expected.index, "est_prob1"], expected, atol=0.01)


def test_the_probability_counts_pairs_of_draws(peaks: Any) -> None:
    asked = {"idx1": "kind == 'a'", "n_samples_overall": 400, "all_stats": False}
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def kept(first: np.ndarray, second: np.ndarray, pseudocount: float) -> np.ndarray:
        seen.append((first, second))
        return first - second

    torch.manual_seed(3)
    table = peaks.differential_accessibility(**asked, change_fn=kept, delta=0.1)
    torch.manual_seed(3)
    plain = peaks.differential_accessibility(**asked, delta=0.1)
    pd.testing.assert_frame_equal(table, plain)
    first, second = (np.concatenate(values, axis=1) for values in zip(*seen, strict=True))
    two = (np.abs(first - second) >= 0.1).mean(axis=0)
    found = table.loc[peaks.adata.var_names]
    np.testing.assert_allclose(found["prob_da"], two, atol=1e-6)
    assert "emp_prob1" not in table
    torch.manual_seed(3)
    up = peaks.differential_accessibility(**asked, delta=0.1, two_sided=False)
    np.testing.assert_allclose(
        up.loc[peaks.adata.var_names, "prob_da"], (first - second >= 0.1).mean(axis=0), atol=1e-6
    )
    change = first - second
    for test_mode, expected in (
        ("two", two),
        ("three", np.maximum((change >= 0.1).mean(axis=0), (change < -0.1).mean(axis=0))),
    ):
        torch.manual_seed(3)
        apart = peaks.differential_accessibility(**asked, delta=0.1, test_mode=test_mode)
        np.testing.assert_allclose(apart.loc[peaks.adata.var_names, "prob_da"], expected, atol=1e-6)
    torch.manual_seed(3)
    order = peaks.differential_accessibility(**asked, mode="vanilla")
    assert "is_da_fdr" not in order
    np.testing.assert_allclose(
        order.loc[peaks.adata.var_names, "prob_da"], (first > second).mean(axis=0), atol=1e-6
    )
    torch.manual_seed(3)
    logs = peaks.differential_accessibility(
        **asked, change_fn="log-fold", delta=0.5, pseudocounts=1e-3
    )
    fold = np.log2(first + 1e-3) - np.log2(second + 1e-3)
    np.testing.assert_allclose(
        logs.loc[peaks.adata.var_names, "prob_da"], (np.abs(fold) >= 0.5).mean(axis=0), atol=0.01
    )


def test_fragments_have_factors_that_can_be_taken_out() -> None:
    adata = blood()
    POISSONVI.setup_anndata(adata)
    torch.manual_seed(0)
    model = POISSONVI(adata, n_hidden=16, n_latent=3)
    with pytest.raises(NotTrainedError):
        model.get_normalized_accessibility()
    model.train(max_epochs=5, **QUICK)
    before = model.module.region_bias.detach().clone()
    torch.manual_seed(1)
    without = model.get_normalized_accessibility()
    torch.manual_seed(1)
    whole = model.get_normalized_accessibility(normalize_regions=True)
    torch.manual_seed(1)
    pd.testing.assert_frame_equal(whole, model.get_normalized_expression())
    expected = without * np.exp(model.get_region_factors())
    np.testing.assert_allclose(whole, expected.div(expected.sum(axis=1), axis=0), rtol=1e-4)
    assert torch.equal(before, model.module.region_bias)
    some = model.get_normalized_accessibility(region_list=["chr1:3"], n_samples=5)
    assert some.shape == (N_CELLS, 1)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"threshold": 1.5}, InvalidOptionError),
        ({"n_samples_overall": 0}, InvalidOptionError),
        ({"region_list": ["chr1:99"]}, UnknownKeyError),
        ({"transform_batch": "b9"}, UnknownKeyError),
    ],
)
def test_questions_without_an_answer_are_refused(
    peaks: Any, kwargs: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        peaks.get_normalized_accessibility(**kwargs)


def test_factors_that_were_not_learned_are_refused() -> None:
    adata = blood()
    PEAKVI.setup_anndata(adata)
    bare = PEAKVI(adata, n_hidden=8, n_latent=2, region_factors=False, model_depth=False)
    bare.train(max_epochs=1, **QUICK)
    assert bare.get_normalized_accessibility().shape == (N_CELLS, N_REGIONS)
    with pytest.raises(InvalidOptionError, match="region_factors=False"):
        bare.get_normalized_accessibility(normalize_regions=True)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"mode": "changes"},
        {"change_fn": "diff"},
        {"delta": -1.0},
        {"fdr_target": 2.0},
        {"test_mode": "one"},
        {"test_mode": "three", "two_sided": False},
    ],
)
def test_comparisons_without_an_answer_are_refused(peaks: Any, kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError):
        peaks.differential_accessibility(groupby="kind", **kwargs)


def test_peaks_of_blood_cells_differ_as_they_were_counted(shared_data: Path) -> None:
    whole = anndata.read_h5ad(shared_data / "granja_bmmc_scatac.h5ad", backed="r")
    kinds = whole.obs["cell_type"].astype(str)
    common = kinds.value_counts().index[:2].tolist()
    chosen = np.concatenate([np.flatnonzero(kinds == kind)[:400] for kind in common])
    cells = whole[np.sort(chosen)].to_memory()
    often = np.argsort(-np.asarray((cells.X > 0).sum(axis=0)).ravel())[:1_000]
    cells = cells[:, np.sort(often)].copy()
    PEAKVI.setup_anndata(cells)
    torch.manual_seed(0)
    model = PEAKVI(cells)
    model.train(max_epochs=40, **QUICK, plan_kwargs={"lr": 3e-3})
    first, second = common
    table = model.differential_accessibility(
        groupby="cell_type", group1=first, group2=second, n_samples_overall=1_000
    )
    called = table[table["is_da_fdr"] & (table["emp_effect"].abs() > 0.1)]
    assert len(called) > 10
    assert (np.sign(called["effect_size"]) == np.sign(called["emp_effect"])).mean() > 0.95
    assert np.corrcoef(table["effect_size"], table["emp_effect"])[0, 1] > 0.8

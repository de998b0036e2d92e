"""Differential expression of small cells and of blood cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.errors import CellvaeError, DataMismatchError, InvalidOptionError, UnknownKeyError
from cellvae.inference.differential import engine
from cellvae.inference.differential.table import COLUMNS
from cellvae.model import SCVI
from cellvae.settings import settings

pytestmark = pytest.mark.trains

DOCS = Path(__file__).parents[3] / "docs" / "differential-expression.md"
MARKERS = {
    "kang_ctrl_8donors.h5ad": {
        "B cells": ["CD79A"],
        "CD14+ Monocytes": ["CD14", "LYZ"],
        "NK cells": ["GNLY", "NKG7"],
        "CD4 T cells": ["CD3D"],
        "FCGR3A+ Monocytes": ["FCGR3A"],
    },
    "pbmc3k.h5ad": {
        "B": ["MS4A1", "CD79A"],
        "CD14+ Mono": ["CD14", "LYZ"],
        "NK": ["NKG7", "GNLY"],
        "FCGR3A+ Mono": ["FCGR3A"],
    },
}


@pytest.fixture(autouse=True)
def same_draws() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model(trained: Callable[..., SCVI]) -> SCVI:
    return trained()


def test_columns_are_those_of_the_table(model: SCVI) -> None:
    table = model.differential_expression(groupby="label", fdr_target=0.1)
    known = [name.replace("*", "0.1") for name in COLUMNS]
    assert list(table.columns) == [name for name in known if name not in ("proba_m1", "proba_m2")]
    vanilla = model.differential_expression(groupby="label", mode="vanilla", all_stats=False)
    assert list(vanilla.columns) == [
        *("proba_m1", "proba_m2", "bayes_factor", "scale1", "scale2"),
        *("comparison", "group1", "group2"),
    ]
    text = SCVI.differential_expression.__doc__
    assert all(f"`{name}`" in text for name in COLUMNS)


def test_the_docs_say_what_each_column_means() -> None:
    lines = DOCS.read_text().splitlines()
    assert [line for line in lines if line.startswith("| `")] == [
        f"| `{name}` | {meaning} |" for name, meaning in COLUMNS.items()
    ]


def test_rows_are_sorted_within_each_comparison(model: SCVI) -> None:
    table = model.differential_expression(groupby="label")
    assert table["comparison"].drop_duplicates().tolist() == ["x vs Rest", "y vs Rest"]
    for _, part in table.groupby("comparison"):
        assert part["proba_de"].is_monotonic_decreasing
        assert set(part.index) == set(model.adata.var_names)


def test_two_populations_have_opposite_changes(model: SCVI) -> None:
    table = model.differential_expression(groupby="label", pseudocounts=1e-6)
    first, second = (part.sort_index() for _, part in table.groupby("group1"))
    np.testing.assert_allclose(first["lfc_mean"], -second["lfc_mean"], atol=0.05)
    np.testing.assert_allclose(first["scale1"], second["scale2"], rtol=0.05)


def test_cells_by_query_give_what_groups_give(model: SCVI) -> None:
    torch.manual_seed(1)
    by_group = model.differential_expression(groupby="label", group1="x", group2="y")
    torch.manual_seed(1)
    by_query = model.differential_expression(idx1="label == 'x'", idx2="label == 'y'")
    pd.testing.assert_frame_equal(by_group[by_query.columns], by_query)


def test_changes_are_those_of_normalized_expression(model: SCVI) -> None:
    table = model.differential_expression(groupby="label", group1="x", all_stats=False)
    scales = model.get_normalized_expression(n_samples=200, return_mean=False)
    chosen = (model.adata.obs["label"] == "x").to_numpy()
    pseudocount = table["pseudocounts"].iloc[0]
    logs = np.log2(scales + pseudocount)
    expected = logs[:, chosen].mean(axis=(0, 1)) - logs[:, ~chosen].mean(axis=(0, 1))
    found = table.loc[model.adata.var_names]
    errors = found["lfc_std"] / np.sqrt(5_000)
    assert (np.abs(found["lfc_mean"] - expected) < 4.5 * errors).all()


def test_raw_means_are_of_the_counts_as_they_are(model: SCVI) -> None:
    table = model.differential_expression(groupby="label", group1="x").loc[model.adata.var_names]
    counts = model.adata.X
    chosen = (model.adata.obs["label"] == "x").to_numpy()
    shares = counts / counts.sum(axis=1, keepdims=True) * 1e4
    for side, cells in (("1", chosen), ("2", ~chosen)):
        np.testing.assert_allclose(table[f"raw_mean{side}"], counts[cells].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(
            table[f"non_zeros_proportion{side}"], (counts[cells] > 0).mean(axis=0), rtol=1e-5
        )
        np.testing.assert_allclose(
            table[f"raw_normalized_mean{side}"], shares[cells].mean(axis=0), rtol=1e-5
        )
    assert list(model.adata.obs.columns) == ["batch", "label", "size"]


def test_draws_of_one_batch_are_decoded_for_it(model: SCVI) -> None:
    kwargs = {"groupby": "label", "group1": "x", "all_stats": False, "batch_correction": True}
    table = model.differential_expression(**kwargs, batchid1=["b0"], batchid2=["b2"])
    cells = model.adata.obs["label"] == "x"
    for side, batch, chosen in (("scale1", "b0", cells), ("scale2", "b2", ~cells)):
        expected = model.get_normalized_expression(
            indices=chosen, transform_batch=batch, n_samples=200
        ).mean()
        np.testing.assert_allclose(table[side].loc[expected.index], expected, rtol=0.03)
    every = model.differential_expression(**kwargs)
    expected = model.get_normalized_expression(
        indices=cells, transform_batch=["b0", "b1", "b2"], n_samples=200
    ).mean()
    np.testing.assert_allclose(every["scale1"].loc[expected.index], expected, rtol=0.03)


def test_draws_are_compared_batch_by_batch(model: SCVI) -> None:
    codes = engine.sample_batch_codes(model, ["b2", "b0"], ["b0", "b2"], 100)
    assert torch.equal(codes[0], codes[1])
    assert codes[0].squeeze().bincount().tolist() == [50, 0, 50]
    apart = engine.sample_batch_codes(model, ["b0", "b1"], ["b1", "b2"], 400)
    pairs = torch.cat(apart, dim=1).unique(dim=0, return_counts=True)[1]
    assert len(pairs) == 4
    assert pairs.min() > 70


def test_a_function_of_change_gets_all_draws(model: SCVI) -> None:
    def difference(first: np.ndarray, second: np.ndarray, pseudocount: float) -> np.ndarray:
        return first - second

    table = model.differential_expression(groupby="label", change_fn=difference, delta=0.0)
    np.testing.assert_allclose(
        table["lfc_mean"], table["scale1"] - table["scale2"], rtol=1e-3, atol=1e-6
    )
    assert (table["proba_de"] >= 0.5).all()
    with pytest.raises(InvalidOptionError, match="one change for each sample and gene"):
        model.differential_expression(groupby="label", change_fn=lambda a, b, c: a[0])


def test_estimated_delta_and_vanilla_and_weights(model: SCVI) -> None:
    table = model.differential_expression(groupby="label", delta=None)
    assert table["delta"].min() >= 0.1
    weighted = model.differential_expression(groupby="label", weights="importance")
    assert weighted[["scale1", "scale2"]].groupby(weighted["group1"]).sum().to_numpy() == (
        pytest.approx(1.0, abs=1e-4)
    )


def test_outliers_are_left_out(model: SCVI) -> None:
    whole = model.differential_expression(groupby="label", n_samples_overall=50)
    part = model.differential_expression(
        groupby="label", n_samples_overall=50, filter_outlier_cells=True
    )
    one = part["non_zeros_proportion1"] * 27
    assert np.allclose(one, one.round(), atol=1e-4)
    assert not np.allclose(whole["raw_mean1"].sort_index(), part["raw_mean1"].sort_index())


def test_all_populations_share_one_pass(model: SCVI, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = model.module.encode
    monkeypatch.setattr(
        model.module, "encode", lambda batch: encoded.append(len(batch.batch)) or encode(batch)
    )
    model.differential_expression(groupby="label", n_samples_overall=1_000)
    assert sum(encoded) <= model.adata.n_obs


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, InvalidOptionError, "got neither"),
        ({"groupby": "label", "idx1": [0]}, InvalidOptionError, "got both"),
        ({"groupby": "label", "idx2": [0]}, InvalidOptionError, "idx2 alone"),
        ({"idx1": [0], "group1": "x"}, InvalidOptionError, "got idx1"),
        ({"groupby": "labels"}, UnknownKeyError, "Did you mean 'label'"),
        ({"groupby": "label", "mode": "chance"}, InvalidOptionError, "Did you mean 'change'"),
        ({"groupby": "label", "test_mode": "one"}, InvalidOptionError, "test_mode"),
        ({"groupby": "label", "weights": "even"}, InvalidOptionError, "weights"),
        ({"groupby": "label", "change_fn": "fold"}, InvalidOptionError, "change_fn"),
        ({"groupby": "label", "delta": -1}, InvalidOptionError, "delta"),
        ({"groupby": "label", "pseudocounts": float("nan")}, InvalidOptionError, "pseudocounts"),
        ({"groupby": "label", "fdr_target": 5}, InvalidOptionError, "between 0 and 1"),
        ({"groupby": "label", "n_samples_overall": 1}, InvalidOptionError, "at least 2"),
        ({"groupby": "label", "batchid1": ["b0"]}, InvalidOptionError, "batch_correction=True"),
        (
            {"groupby": "label", "batch_correction": True, "batchid1": ["b9"]},
            UnknownKeyError,
            "got 'b9'",
        ),
    ],
)
def test_questions_that_cannot_be_asked(
    model: SCVI, kwargs: Mapping[str, Any], error: type[CellvaeError], text: str
) -> None:
    with pytest.raises(error, match=text):
        model.differential_expression(**kwargs)


def test_minified_cells_need_no_counts(model: SCVI) -> None:
    copy = SCVI(model.adata.copy(), n_hidden=8, n_latent=3)
    copy.module.load_state_dict(model.module.state_dict())
    copy.is_trained = True
    kwargs = {"groupby": "label", "all_stats": False, "pseudocounts": 1e-5}
    before = copy.differential_expression(**kwargs)
    copy.minify_adata()
    after = copy.differential_expression(**kwargs)
    np.testing.assert_allclose(
        before["lfc_mean"].sort_index(), after["lfc_mean"].sort_index(), atol=0.05
    )
    with pytest.raises(DataMismatchError):
        copy.differential_expression(groupby="label")


def table_of(adata: AnnData, groups: Mapping[str, list[str]]) -> pd.DataFrame:
    """Groups against all other cells, by a model trained shortly."""
    batch = "batch" if "batch" in adata.obs else None
    SCVI.setup_anndata(adata, batch_key=batch)
    torch.manual_seed(0)
    model = SCVI(adata, gene_likelihood="nb", n_hidden=64)
    model.train(
        max_epochs=20,
        batch_size=64,
        accelerator="cpu",
        seed=0,
        plan_kwargs={"lr": 4e-3},
        enable_progress_bar=False,
    )
    return model.differential_expression(
        groupby="cell_type", group1=list(groups), n_samples_overall=1_000
    )


@pytest.mark.parametrize("name", MARKERS)
def test_markers_of_blood_cells_come_out(name: str, shared_data: Path) -> None:
    whole = anndata.read_h5ad(shared_data / name)
    chosen = np.random.default_rng(0).choice(whole.n_obs, 1_500, replace=False)
    counted = np.asarray(whole.X.sum(axis=0)).ravel()
    adata = whole[chosen, np.sort(np.argsort(-counted)[:2_000])].copy()
    groups = MARKERS[name]
    table = table_of(adata, groups)
    for cells, genes in groups.items():
        part = table[table["group1"] == cells]
        found = part.loc[genes]
        assert (found["lfc_mean"] > 1).all(), cells
        assert (found["proba_de"] > 0.85).all(), cells
        assert (part["lfc_mean"].rank(ascending=False)[genes] <= 60).all(), cells


@pytest.mark.parametrize("test_mode", ["two", "three"])
def test_compiled_and_plain_kernels_give_the_same_table(
    model: SCVI, monkeypatch: pytest.MonkeyPatch, test_mode: str
) -> None:
    tables = []
    for kernels in ("torch", "compiled"):
        monkeypatch.setitem(settings.values, "kernels", kernels)
        torch.manual_seed(1)
        tables.append(
            model.differential_expression(
                groupby="label", group1="x", test_mode=test_mode, n_samples_overall=501
            )
        )
    plain, compiled = tables[0].sort_index(), tables[1].sort_index()
    for name in plain:
        if plain[name].dtype.kind == "f":
            # A draw on the border of delta may count on either side.
            atol = 3 / 501 if name.startswith("proba") else 1e-5
            atol = 0.1 if name == "bayes_factor" else atol
            np.testing.assert_allclose(compiled[name], plain[name], rtol=1e-4, atol=atol)

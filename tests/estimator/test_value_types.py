"""Values of columns keep their type from `adata.obs` to every result, through files too."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.errors import (
    DataMismatchError,
    FileFormatError,
    InvalidDataError,
    InvalidOptionError,
    UnknownKeyError,
)
from cellvae.model import PEAKVI, SCANVI, SCVI

pytestmark = pytest.mark.trains

VALUES: dict[str, list[Any]] = {
    "int": [10, 2, 33],
    "float": [0.5, 1.5, -2.5],
    "bool": [True, False, True],
    "bytes": [b"a\x00", b"b", b"c"],
    "tuple": [("a", 1), ("a", 2), ("b", 1)],
    "Timestamp": [pd.Timestamp("2024-03-01"), pd.Timestamp("2025"), pd.Timestamp("2026")],
    "zone": [pd.Timestamp(f"2024-0{i}-01", tz="Europe/Berlin") for i in (1, 6, 9)],
    "Timedelta": [pd.Timedelta("1h"), pd.Timedelta("2h"), pd.Timedelta("3h")],
    "date": [datetime.date(2024, 3, 1), datetime.date(2024, 3, 2), datetime.date(2024, 3, 3)],
    "Interval": [pd.Interval(0.0, 1.0), pd.Interval(1.0, 2.0), pd.Interval(2.0, np.inf)],
    "Period": [pd.Period("2024-03", "M"), pd.Period("2024-04", "M"), pd.Period("2024-05", "M")],
}
"""Batches that cells come from in turn."""

METHODS = (
    "get_normalized_expression",
    "posterior_predictive_sample",
    "get_feature_correlation_matrix",
)


def with_values(adata: AnnData, values: list[Any]) -> AnnData:
    """Cells that have these values in turn, in a column as pandas makes it."""
    column = np.empty(adata.n_obs, dtype=object)
    for cell in range(adata.n_obs):
        column[cell] = values[cell % len(values)]
    adata.obs["kind"] = pd.Series(column, index=adata.obs_names).infer_objects()
    return adata


def dense(answer: Any) -> np.ndarray:
    return answer.toarray() if hasattr(answer, "toarray") else np.asarray(answer)


@pytest.mark.parametrize("kind", VALUES)
def test_batches_of_every_type_are_found_again(
    kind: str,
    adata: AnnData,
    make: Callable[..., SCVI],
    train: Callable[..., SCVI],
    tmp_path: Path,
) -> None:
    values = VALUES[kind]
    setup = {"batch_key": "kind", "categorical_covariate_keys": ["kind"]}
    model = train(make(with_values(adata, values), setup))
    known = model.registration.categories("batch")
    assert set(known) == set(values)
    codes = model.adata_manager.get_from_registry("batch")[:, 0]
    assert [known[code] for code in codes[: len(values)]] == values
    model.save(tmp_path / "model")
    again = SCVI.load(tmp_path / "model", adata)
    assert repr(again.registration.categories("batch")) == repr(known)
    for method in METHODS:
        for asked in (values[0], [values[0], values[1]], np.array([0])[:0]):
            if isinstance(asked, np.ndarray):
                with pytest.raises(InvalidOptionError, match="at least one batch"):
                    getattr(model, method)(transform_batch=asked)
                continue
            answers = []
            for one in (model, again):
                torch.manual_seed(0)
                answers.append(dense(getattr(one, method)(transform_batch=asked)))
            assert np.array_equal(*answers)
    with pytest.raises(UnknownKeyError, match=r"got .* as str\. Give it as"):
        model.get_normalized_expression(transform_batch=str(values[0]))
    mappings = [
        model.get_state_registry("batch").categorical_mapping,
        model.get_state_registry("extra_categorical_covs").mappings["kind"],
    ]
    assert all([*mapping] == [*known] for mapping in mappings)


def test_a_number_for_a_batch_of_texts_is_refused_with_the_types(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    model = train(make(with_values(adata, ["1", "2"]), {"batch_key": "kind"}))
    message = r"one of '1', '2' as str; got '1' as int\. Give it as str\."
    with pytest.raises(UnknownKeyError, match=message):
        model.get_normalized_expression(transform_batch=1)
    with pytest.raises(UnknownKeyError, match=r"as str; got '3', '4' as int\."):
        model.get_normalized_expression(transform_batch=[3, 4])
    with pytest.raises(UnknownKeyError, match=r"one of '1', '2'; got '3'\.$"):
        model.get_normalized_expression(transform_batch="3")
    with pytest.raises(DataMismatchError, match=r"\('1', '2' as str\); got '1', '2' as int in 70"):
        model.get_latent_representation(with_values(adata.copy(), [1, 2]))


@pytest.mark.parametrize("kind", [kind for kind in VALUES if kind != "bool"])
def test_groups_and_samples_keep_their_type(
    kind: str, adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI], tmp_path: Path
) -> None:
    values = VALUES[kind]
    model = train(make(with_values(adata, values)))
    kwargs: dict[str, Any] = {"groupby": "kind", "n_samples_overall": 20, "silent": True}
    table = model.differential_expression(**kwargs)
    assert len(table) == 3 * model.registration.n_genes
    for value in values:
        mine = [group == value for group in table["group1"]]
        assert sum(mine) == model.registration.n_genes
    if kind not in ("tuple", "Interval"):
        assert (table["group1"] == values[1]).sum() == model.registration.n_genes
    table = model.differential_expression(**kwargs, group1=values[2], group2=values[0])
    assert {*table["group1"]} == {values[2]}
    assert {*table["group2"]} == {values[0]}
    assert {*table["comparison"]} == {f"{values[2]} vs {values[0]}"}
    with pytest.raises(UnknownKeyError, match="Give it as"):
        model.differential_expression(**kwargs, group1=str(values[0]))
    density = model.differential_abundance(sample_key="kind", silent=True)
    assert {*density.columns} == {*values}
    assert [*adata.obsm["da_log_probs"].columns] == [str(value) for value in density.columns]
    assert density.columns.nlevels == 1


@pytest.mark.parametrize("kind", [kind for kind in VALUES if kind != "bool"])
def test_labels_are_predicted_in_their_type(kind: str, adata: AnnData, tmp_path: Path) -> None:
    values = VALUES[kind]
    with_values(adata, values)
    SCANVI.setup_anndata(adata, "kind", unlabeled_category=values[1])
    model = SCANVI(adata, n_hidden=8, n_latent=3)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, seed=0)
    assert {*model.labels} == {values[0], values[2]}
    assert model.unlabeled_category == values[1]
    model.save(tmp_path / "model")
    again = SCANVI.load(tmp_path / "model", adata)
    assert repr(again.labels) == repr(model.labels)
    assert again.unlabeled_category == values[1]
    told = again.predict()
    assert told.shape == (adata.n_obs,)
    assert {*pd.Series(told)} <= {*values}
    if kind in ("int", "float"):
        assert told.dtype == np.asarray(values).dtype
    soft = again.predict(soft=True)
    assert soft.columns.nlevels == 1
    assert [*soft.columns] == [*model.labels]
    best = soft.to_numpy().argmax(axis=1)
    assert [*pd.Series(told)] == [model.labels[place] for place in best]


def test_differential_accessibility_keeps_the_type_of_groups(adata: AnnData) -> None:
    with_values(adata, [1, 2])
    PEAKVI.setup_anndata(adata, batch_key="kind")
    model = PEAKVI(adata, n_hidden=8, n_latent=3)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, seed=0)
    table = model.differential_accessibility(groupby="kind", n_samples_overall=20)
    assert len(table[table.group1 == 1]) == adata.n_vars
    assert table["group1"].dtype == np.int64
    values = model.get_normalized_accessibility(transform_batch=2)
    assert values.shape == adata.shape
    with pytest.raises(UnknownKeyError, match="as int; got '2' as str"):
        model.get_normalized_accessibility(transform_batch="2")


def test_dates_of_files_that_have_them_as_text_are_found(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI], tmp_path: Path
) -> None:
    """Version 0.1.0 wrote what JSON does not have as text."""
    values = VALUES["Timestamp"]
    model = train(make(with_values(adata, values), {"batch_key": "kind"}))
    latent = model.get_latent_representation()
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    record = json.loads(path.read_text())
    assert record["registration"]["fields"]["batch"]["categories"][0] == {
        "type": "timestamp",
        "value": "2024-03-01T00:00:00",
        "unit": pd.Series(values).dt.unit,  # microseconds from pandas 3 on
    }
    known = model.registration.fields["batch"]
    text = tuple(str(value) for value in known.categories)
    fields = {**model.registration.fields, "batch": type(known)(key="kind", categories=text)}
    object.__setattr__(model.registration, "fields", fields)
    model.save(tmp_path / "old")
    old = SCVI.load(tmp_path / "old", adata)
    assert np.array_equal(old.get_latent_representation(), latent)
    assert old.get_normalized_expression(transform_batch=values[1]).shape == adata.shape


@pytest.mark.parametrize("kind", ["int", "bytes", "tuple", "Timestamp", "Timedelta", "bool"])
def test_files_for_scvi_tools_keep_the_type(
    kind: str, adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI], tmp_path: Path
) -> None:
    setup = {"batch_key": "kind", "categorical_covariate_keys": ["kind"]}
    model = train(make(with_values(adata, VALUES[kind]), setup))
    model.save(tmp_path / "model", format="scvi-tools")
    again = SCVI.load(tmp_path / "model", adata)
    for name in ("batch", "categorical"):
        assert repr(again.registration.fields[name]) == repr(model.registration.fields[name])
    assert np.array_equal(again.get_latent_representation(), model.get_latent_representation())


def test_objects_of_files_of_scvi_tools_are_no_categories(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI], tmp_path: Path
) -> None:
    model = train(make(with_values(adata, VALUES["Interval"]), {"batch_key": "kind"}))
    model.save(tmp_path / "model", format="scvi-tools")
    with pytest.raises(FileFormatError, match=r"objects of another type.*\.astype\(str\)"):
        SCVI.load(tmp_path / "model")


def test_scalars_of_numpy_are_the_values_of_the_column(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    asked = {
        "int": np.int16(2),
        "float": np.float32(1.5),
        "bool": np.True_,
        "Timestamp": np.datetime64("2025-01-01"),
        "Timedelta": np.timedelta64(2, "h"),
    }
    for kind, value in asked.items():
        model = train(make(with_values(adata.copy(), VALUES[kind]), {"batch_key": "kind"}))
        assert model.get_normalized_expression(transform_batch=value).shape == adata.shape


def test_queries_add_values_of_the_same_type(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    values = VALUES["Interval"]
    model = train(make(with_values(adata, values[:2]), {"batch_key": "kind"}))
    other = with_values(adata.copy(), values[1:])
    query = SCVI.load_query_data(other, model)
    assert query.registration.categories("batch") == tuple(values)
    with pytest.raises(DataMismatchError, match="as str"):
        SCVI.load_query_data(with_values(adata.copy(), [str(values[0])]), model)


def test_values_that_are_no_categories_are_refused(
    adata: AnnData, make: Callable[..., SCVI]
) -> None:
    with pytest.raises(InvalidDataError, match=r"can be compared .*unhashable type: 'list'"):
        make(with_values(adata, [[1], [2]]), {"batch_key": "kind"})
    with pytest.raises(InvalidDataError, match=r"several objects whose string is '\(1\+2j\)'"):
        make(with_values(adata, [1 + 2j, "(1+2j)"]), {"batch_key": "kind"})


@pytest.mark.parametrize(
    ("values", "unlabeled"),
    [
        ([pd.Interval(0.0, 1.0), pd.Interval(1.0, 2.0), pd.Interval(2.0, 3.0)], pd.Interval(1, 2)),
        ([-1.0, 0.0, 1.0], -1),
        ([-1, 0, 1], -1.0),
        ([-1, 0, 1], "-1"),
        ([pd.Timestamp("2024"), pd.Timestamp("2025")], datetime.datetime(2025, 1, 1)),
        ([True, False], np.False_),
    ],
)
def test_the_unlabeled_category_is_found_by_value(
    values: list[Any], unlabeled: Any, adata: AnnData
) -> None:
    SCANVI.setup_anndata(with_values(adata, values), "kind", unlabeled_category=unlabeled)
    model = SCANVI(adata, n_hidden=8, n_latent=3)
    assert model.unlabeled_category in values
    assert model.n_labels == len(values) - 1

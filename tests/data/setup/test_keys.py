"""Keys: what the user said, written down in the AnnData and read again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cellvae.data.setup.keys import (
    CountKeys,
    Keys,
    keys_from_kwargs,
    store_keys,
    stored_keys,
)
from cellvae.errors import InvalidDataError, InvalidOptionError, NotSetUpError

EVERY_WORD = CountKeys(
    layer="counts",
    batch_key="batch",
    labels_key="labels",
    size_factor_key="size",
    categorical_covariate_keys=["donor", "sex"],  # type: ignore[arg-type]
    continuous_covariate_keys=("age",),
)


@dataclass(frozen=True, kw_only=True)
class LabelledKeys(Keys):
    """Keys of a model that needs labels."""

    labels_key: str
    unlabeled_category: str | None = None


@pytest.fixture
def adata() -> AnnData:
    obs = pd.DataFrame({"batch": ["a", "b", "a"]}, index=["x", "y", "z"])
    return AnnData(np.ones((3, 2), np.float32), obs=obs, uns={"mine": 1})


@pytest.mark.parametrize(
    ("keys", "suffix"),
    [
        (CountKeys(), "h5ad"),
        (CountKeys(batch_key="batch"), "h5ad"),
        (EVERY_WORD, "h5ad"),
        (EVERY_WORD, "zarr"),
    ],
)
def test_keys_come_back_from_a_file(
    adata: AnnData, keys: CountKeys, suffix: str, tmp_path: Path
) -> None:
    store_keys(adata, "SCVI", keys)
    path = tmp_path / f"cells.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opinions of the zarr package are not ours.
        if suffix == "zarr":
            pytest.importorskip("zarr")
            adata.write_zarr(path)
            again = anndata.read_zarr(path)
        else:
            adata.write_h5ad(path)
            again = anndata.read_h5ad(path)
    assert stored_keys(again, "SCVI", CountKeys) == keys
    assert stored_keys(adata.copy(), "SCVI", CountKeys) == keys


def test_only_the_words_given_are_written_and_nothing_else_changes(adata: AnnData) -> None:
    before = adata.copy()
    store_keys(adata, "SCVI", CountKeys(batch_key="batch", categorical_covariate_keys=("batch",)))
    expected = {"batch_key": "batch", "categorical_covariate_keys": ["batch"]}
    assert adata.uns == {"mine": 1, "cellvae": {"SCVI": expected}}
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert not adata.obsm and not adata.varm and not adata.layers
    np.testing.assert_array_equal(adata.X, before.X)


def test_a_second_setup_replaces_the_first_of_the_same_model_only(adata: AnnData) -> None:
    store_keys(adata, "SCVI", EVERY_WORD)
    store_keys(adata, "SCANVI", LabelledKeys(labels_key="batch"))
    store_keys(adata, "SCVI", CountKeys(labels_key="batch"))
    assert adata.uns["cellvae"] == {
        "SCVI": {"labels_key": "batch"},
        "SCANVI": {"labels_key": "batch"},
    }
    assert stored_keys(adata, "SCANVI", LabelledKeys) == LabelledKeys(labels_key="batch")


def test_an_anndata_that_was_not_set_up_has_no_keys(adata: AnnData) -> None:
    assert stored_keys(adata, "SCVI", CountKeys) is None
    store_keys(adata, "SCVI", CountKeys())
    assert stored_keys(adata, "SCVI", CountKeys) == CountKeys()
    assert stored_keys(adata, "SCANVI", CountKeys) is None


def test_a_view_becomes_an_object_of_its_own_without_a_warning(adata: AnnData) -> None:
    view = adata[["z", "x"]]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store_keys(view, "SCVI", CountKeys(batch_key="batch"))
    assert not caught
    assert not view.is_view and view.obs_names.tolist() == ["z", "x"]
    assert "cellvae" not in adata.uns


def test_an_anndata_in_backed_mode_can_be_set_up_but_not_a_view_of_it(
    adata: AnnData, tmp_path: Path
) -> None:
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    store_keys(backed, "SCVI", CountKeys(batch_key="batch"))
    assert stored_keys(backed, "SCVI", CountKeys) == CountKeys(batch_key="batch")
    with pytest.raises(InvalidDataError, match=r"view of one opened in backed mode.*to_memory"):
        store_keys(backed[:2], "SCVI", CountKeys())
    backed.file.close()


def test_what_is_no_anndata_or_has_no_free_place_is_refused(adata: AnnData) -> None:
    with pytest.raises(InvalidDataError, match="Expected an AnnData; got DataFrame"):
        store_keys(adata.obs, "SCVI", CountKeys())
    adata.uns["cellvae"] = "notes"
    with pytest.raises(InvalidDataError, match=r"adata.uns\['cellvae'\].*got a value of type str"):
        store_keys(adata, "SCVI", CountKeys())


def test_several_names_may_come_in_any_list() -> None:
    expected = ("a", "b")
    for names in (["a", "b"], ("a", "b"), np.array(["a", "b"]), pd.Index(["a", "b"])):
        keys = CountKeys(categorical_covariate_keys=names)  # type: ignore[arg-type]
        assert keys.categorical_covariate_keys == expected
        assert all(type(name) is str for name in keys.categorical_covariate_keys)
    assert CountKeys(continuous_covariate_keys=None).continuous_covariate_keys == ()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"categorical_covariate_keys": "donor"}, r"Write categorical_covariate_keys=\['donor'\]"),
        (
            {"continuous_covariate_keys": ["a", 3]},
            "names .strings. in continuous_covariate_keys; got 3",
        ),
        ({"categorical_covariate_keys": ["a", "b", "a"]}, "got 'a' more than once"),
        ({"categorical_covariate_keys": {"a"}}, r"Expected a list of names .*got \{'a'\}"),
        ({"categorical_covariate_keys": 5}, "Expected a list of names .*got 5"),
        ({"batch_key": ["batch"]}, r"Expected a name .a string. for batch_key; got \['batch'\]"),
        ({"layer": 3}, "for layer; got 3"),
    ],
)
def test_names_of_another_type_are_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        keys_from_kwargs(kwargs, CountKeys)


def test_a_key_without_default_must_be_given() -> None:
    with pytest.raises(InvalidOptionError, match="for labels_key; got None"):
        LabelledKeys(labels_key=None)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="Expected the keys 'labels_key'"):
        keys_from_kwargs({}, LabelledKeys)


def test_a_word_that_is_not_the_models_is_refused_with_the_closest(adata: AnnData) -> None:
    adata.uns["cellvae"] = {"SCVI": {"batchkey": "batch"}}
    with pytest.raises(
        NotSetUpError, match=r"Did you mean 'batch_key'\?.*Call setup_anndata again"
    ):
        stored_keys(adata, "SCVI", CountKeys)
    adata.uns["cellvae"] = {"SCVI": "batch"}
    with pytest.raises(NotSetUpError, match="got 'batch'"):
        stored_keys(adata, "SCVI", CountKeys)

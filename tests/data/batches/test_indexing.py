"""Cell numbers from everything that points at cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from cellvae.data.batches.indexing import cell_indices
from cellvae.errors import InvalidDataError, InvalidOptionError, UnknownKeyError


@pytest.fixture
def adata() -> AnnData:
    obs = pd.DataFrame({"batch": list("aabba")}, index=["v", "w", "x", "y", "z"])
    return AnnData(np.ones((5, 2), np.float32), obs=obs)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (None, [0, 1, 2, 3, 4]),
        (slice(1, None, 2), [1, 3]),
        ([4, 0, 4], [4, 0, 4]),
        ((2,), [2]),
        (3, [3]),
        (np.int32(3), [3]),
        ([-1, -5, 2], [4, 0, 2]),
        (np.array([3, 1], dtype=np.uint8), [3, 1]),
        (torch.tensor([3, 1]), [3, 1]),
        (pd.Index([2, 4]), [2, 4]),
        (pd.array([2, 4], dtype="Int64"), [2, 4]),
        (range(3), [0, 1, 2]),
        ([], []),
        (np.array([]), []),
        ([True, False, False, True, True], [0, 3, 4]),
        (np.array([False] * 5), []),
        (pd.Series([False, True, False, True, False]), [1, 3]),
        (pd.array([True, False, False, False, True], dtype="boolean"), [0, 4]),
        (torch.tensor([False, False, True, False, False]), [2]),
        (["z", "v", "z"], [4, 0, 4]),
        ("x", [2]),
        (pd.Index(["y", "w"]), [3, 1]),
        (np.array(["y", "w"]), [3, 1]),
        (pd.Series(["w", "x"], dtype="string"), [1, 2]),
        (np.where([True, False, False, True, False]), [0, 3]),
        (np.where([False] * 5), []),
        (np.array([[3, 1]]), [3, 1]),
        (np.array([[3], [1]]), [3, 1]),
        ([[3, 1]], [3, 1]),
        (torch.tensor([[3], [1]]), [3, 1]),
        (np.array([[True, False, False, True, False]]), [0, 3]),
        (sparse.csr_matrix([[True], [False], [False], [True], [False]]), [0, 3]),
        (pd.DataFrame({"chosen": [True, False, False, True, False]}), [0, 3]),
        (pd.Categorical(["y", "w"]), [3, 1]),
        (np.array([["y"], ["w"]]), [3, 1]),
        ((["y", "w"],), [3, 1]),
        ([1, 0, 1], [1, 0, 1]),
        (pd.Index([True, False, False, True, False]), [0, 3]),
    ],
)
def test_what_points_at_cells_becomes_their_positions(
    adata: AnnData, indices: object, expected: list[int]
) -> None:
    found = cell_indices(indices, adata)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_a_mask_with_names_is_matched_by_name(adata: AnnData) -> None:
    mask = adata.obs["batch"] == "b"
    assert cell_indices(mask, adata).tolist() == [2, 3]
    assert cell_indices(mask[::-1], adata).tolist() == [2, 3]
    assert cell_indices(mask.reset_index(drop=True), adata).tolist() == [2, 3]
    assert cell_indices(mask.to_frame(), adata).tolist() == [2, 3]
    assert cell_indices(mask, adata[["y", "v", "x"]]).tolist() == [0, 2]
    with pytest.raises(InvalidOptionError, match=r"index lacks 1 cell: 'z'"):
        cell_indices(mask.rename({"z": "other"}), adata)


def test_without_an_anndata_numbers_and_masks_are_understood() -> None:
    assert cell_indices(None, 3).tolist() == [0, 1, 2]
    assert cell_indices([-1], 3).tolist() == [2]
    assert cell_indices([True, False, True], 3).tolist() == [0, 2]
    with pytest.raises(InvalidOptionError, match="got names, first 'a'"):
        cell_indices(["a"], 3)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0, 5, 9], InvalidOptionError, "from 0 to 4; got 2 others: '5', '9'"),
        ([-6], InvalidOptionError, "got 1 other: '-6'"),
        ([True, False], InvalidOptionError, "each of the 5 cells; got 2"),
        ([0.5, 1.0], InvalidOptionError, "got values of type float64, first"),
        ([[0, 1], [2, 3]], InvalidOptionError, r"an array of shape \(2, 2\)"),
        ([[0, 1], [2]], InvalidOptionError, "no array can be made"),
        (
            np.where(np.eye(2)),
            InvalidOptionError,
            r"tuple of 2 arrays.*numpy\.where\(mask\)\[0\]",
        ),
        (sparse.eye(3), InvalidOptionError, r"a matrix of shape \(3, 3\)"),
        ([True, 2], InvalidOptionError, "values of type bool beside int"),
        ([0, 1, 1, 0, 1], InvalidOptionError, r"could be either. Give mask\.astype\(bool\)"),
        ([0.0, 1.0], InvalidOptionError, r"\.astype\(bool\) for a mask"),
        ({1, 2}, InvalidOptionError, "got a set. Make a list"),
        ((i for i in range(2)), InvalidOptionError, "got a generator. Make a list"),
        (range, InvalidOptionError, "Call it"),
        (AnnData(np.ones((2, 2), np.float32)), InvalidOptionError, r"AnnData.*\.obs_names"),
        (slice("v", "x"), InvalidOptionError, "a slice of integers"),
        (pd.array([True, None] * 2 + [True], dtype="boolean"), InvalidOptionError, "type object"),
        (["v", "xx"], UnknownKeyError, r"got 1 other: 'xx'\.$|got 1 other: 'xx'\. Did you mean"),
    ],
)
def test_what_points_at_no_cells_is_refused(
    adata: AnnData, indices: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cell_indices(indices, adata)


def test_names_are_refused_where_cells_share_one(adata: AnnData) -> None:
    adata.obs_names = ["a", "b", "a", "c", "d"]
    with pytest.raises(InvalidDataError, match="got 'a' more than once.*obs_names_make_unique"):
        cell_indices(["b"], adata)
    assert cell_indices([1], adata).tolist() == [1]

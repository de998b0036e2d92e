"""Splits: those of scvi-tools 1.4.2 number for number, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cellvae.data.batches.split import Split, split_cells
from cellvae.errors import InvalidDataError, InvalidOptionError

# For each part: its size, its first cells, and sum(cell x position from 1) modulo 1,000,003, as
# seen in splits that scvi-tools 1.4.2 made with the same arguments.
OBSERVED: list[tuple[int, int, dict[str, Any], list[tuple[int, list[int], int]]]] = [
    (400, 0, {}, [(360, [100, 322, 6, 1], 168926), (40, [132, 309, 341, 196], 154191), (0, [], 0)]),
    (
        400,
        1,
        {"train_size": 0.8, "validation_size": 0.1},
        [
            (320, [268, 204, 171, 62], 936890),
            (40, [398, 125, 328, 339], 151255),
            (40, [121, 115, 373, 216], 169300),
        ],
    ),
    (
        700,
        42,
        {"train_size": 0.9},
        [(630, [340, 2, 227, 81], 114932), (70, [158, 500, 396, 155], 844748), (0, [], 0)],
    ),
    # 129 training cells would leave one over; it goes to validation unless the share was chosen
    # or the last batch is dropped anyway.
    (143, 3, {}, [(128, [41, 5, 123, 51], 597765), (15, [25, 6, 3, 45], 8740), (0, [], 0)]),
    (
        143,
        3,
        {"train_size": 0.9},
        [(129, [103, 41, 5, 123], 607136), (14, [25, 6, 3, 45], 7195), (0, [], 0)],
    ),
    (
        143,
        3,
        {"drop_last": True},
        [(129, [103, 41, 5, 123], 607136), (14, [25, 6, 3, 45], 7195), (0, [], 0)],
    ),
    (
        285,
        7,
        {"batch_size": 64},
        [(256, [182, 273, 158, 69], 612491), (29, [22, 161, 132, 217], 60417), (0, [], 0)],
    ),
    (
        572,
        0,
        {},
        [(515, [12, 460, 186, 343], 543920), (57, [231, 268, 315, 391], 470335), (0, [], 0)],
    ),
    (
        400,
        5,
        {"shuffle": False, "train_size": 0.7, "validation_size": 0.2},
        [
            (280, [80, 81, 82, 83], 464410),
            (80, [0, 1, 2, 3], 170640),
            (40, [360, 361, 362, 363], 316520),
        ],
    ),
    # ceil(0.55 x 100) is 56 in floating point, and 45 are for validation.
    (
        100,
        0,
        {"train_size": 0.55, "validation_size": 0.45},
        [(55, [15, 17, 40, 38], 84365), (45, [26, 86, 2, 55], 49618), (0, [], 0)],
    ),
    (
        1000,
        0,
        {"train_size": 0.55, "validation_size": 0.45},
        [(550, [702, 878, 482, 919], 230315), (450, [993, 859, 298, 553], 589453), (0, [], 0)],
    ),
    (9, 0, {"batch_size": 4}, [(8, [7, 2, 1, 4], 127), (0, [], 0), (1, [5], 5)]),
    (
        258,
        1,
        {"validation_size": 0.05},
        [
            (233, [4, 230, 44, 164], 431859),
            (12, [184, 34, 186, 233], 12018),
            (13, [71, 204, 129, 144], 12225),
        ],
    ),
    (
        258,
        9,
        {"validation_size": 0.0, "batch_size": 58},
        [(232, [54, 166, 106, 77], 542528), (0, [], 0), (26, [124, 62, 243, 184], 48121)],
    ),
    (400, 2, {"train_size": 1.0}, [(400, [94, 32, 225, 157], 972472), (0, [], 0), (0, [], 0)]),
    (
        7,
        0,
        {"train_size": 0.5, "validation_size": 0.0, "batch_size": 5},
        [(4, [6, 2, 1, 3], 25), (0, [], 0), (3, [0, 5, 4], 22)],
    ),
]


def parts(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return split.train, split.validation, split.test


@pytest.mark.parametrize(("n_cells", "seed", "kwargs", "expected"), OBSERVED)
def test_a_split_is_that_of_scvi_tools(
    n_cells: int, seed: int, kwargs: dict[str, Any], expected: list[tuple[int, list[int], int]]
) -> None:
    found = parts(split_cells(n_cells, seed=seed, **kwargs))
    for cells, (size, first, total) in zip(found, expected, strict=True):
        assert cells.dtype == np.int64
        assert (len(cells), cells[:4].tolist()) == (size, first)
        assert int(cells @ np.arange(1, size + 1)) % 1_000_003 == total


@pytest.mark.parametrize("n_cells", [1, 2, 3, 10, 127, 128, 129, 143, 1000])
@pytest.mark.parametrize("train_size", [None, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("validation_size", [None, 0.0, 0.07])
def test_every_cell_is_in_exactly_one_part_and_some_are_trained_on(
    n_cells: int, train_size: float | None, validation_size: float | None
) -> None:
    if train_size == 1.0 and validation_size:
        return
    split = split_cells(n_cells, train_size=train_size, validation_size=validation_size, seed=4)
    assert sorted(np.concatenate(parts(split)).tolist()) == list(range(n_cells))
    assert len(split.train) > 0


def test_cells_can_be_given_as_numbers_or_truths_and_stay_in_their_order() -> None:
    split = split_cells(6, seed=0, external_indexing=[[5, 0, -2], np.array([1]), [3]])
    assert [part.tolist() for part in parts(split)] == [[5, 0, 4], [1], [3]]
    mask = np.array([True, False, True, True, False, False])
    split = split_cells(6, seed=0, external_indexing=[mask, None, np.array([])])
    assert [part.tolist() for part in parts(split)] == [[0, 2, 3], [], []]
    columns = [np.where(mask), np.array([[1], [4]]), slice(5, None)]
    for given in (columns, tuple(columns), np.array([[0, 2, 3], [1, 4, 5]])):
        split = split_cells(6, seed=0, external_indexing=given)
        assert split.train.tolist() == [0, 2, 3]
        assert split.validation.tolist()[:2] == [1, 4]
        assert split.test.tolist() == ([5] if len(given) == 3 else [])
    split = split_cells(6, seed=0, external_indexing=[[1, 2]])
    assert [part.tolist() for part in parts(split)] == [[1, 2], [], []]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0, 1, 1, 2, 2], [3]], "each training cell once .*got 2 repeated: '1', '2'"),
        ([[0], [4, 4]], "each validation cell once .*got 1 repeated: '4'"),
        ([[0, 1, 2], [2, 1, 3]], "got 2 both for training and validation: '2', '1'"),
        ([[0, 1], [2], [3, 2]], "got 1 both for validation and test: '2'"),
        ([[0, 9]], "from 0 to 5; got 1 other: '9'"),
        ([[True, False]], "each of the 6 cells; got 2"),
        ([], "Expected training cells in external_indexing; got none"),
        ([[], [1]], "Expected training cells in external_indexing; got none"),
        ([[0], [1], [2], [3]], r"Expected external_indexing as \[training cells"),
        ("all", "got 'all'"),
    ],
)
def test_given_cells_that_overlap_repeat_or_do_not_exist_are_refused(
    given: Any, message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        split_cells(6, seed=0, external_indexing=given)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train_size": 0}, "train_size above 0 and at most 1; got 0"),
        ({"train_size": 1.1}, "train_size above 0 and at most 1; got 1.1"),
        ({"train_size": float("nan")}, "got nan"),
        ({"validation_size": 1.0}, "validation_size from 0 to below 1; got 1.0"),
        ({"validation_size": -0.1}, "validation_size from 0 to below 1; got -0.1"),
        ({"train_size": 0.9, "validation_size": 0.2}, r"at most 1; got 0.9 \+ 0.2 = 1.1"),
        ({"validation_size": 0.2}, r"at most 1; got 0.9 \+ 0.2 = 1.1"),
        ({"seed": -1}, "a seed from 0 to 4294967295; got -1"),
        ({"seed": 2**32}, "a seed from 0 to 4294967295; got 4294967296"),
    ],
)
def test_shares_and_seeds_out_of_range_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        split_cells(100, **{"seed": 0, **kwargs})


def test_no_cells_cannot_be_split() -> None:
    with pytest.raises(InvalidDataError, match="at least one cell to split; got 0"):
        split_cells(0, seed=0)

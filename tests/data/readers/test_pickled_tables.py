"""Pickles of pandas: the tables of old and new ones, and nothing that runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellvae.data.readers.pickled_tables import MAX_BYTES, read_pickled_tables
from cellvae.errors import InvalidDataError, UnsafeFileError

OLD = Path(__file__).parents[1] / "datasets" / "pbmc_metadata.pickle"
STRINGS = int(pd.__version__.partition(".")[0]) >= 3


def test_tables_of_pandas_0_23_are_read() -> None:
    found = read_pickled_tables(OLD)
    barcodes = ["CC-1", "AA-1", "GG-1", "TT-1", "AC-11", "CA-1"]
    numbers = np.arange(6)
    pd.testing.assert_frame_equal(
        found["design"],
        pd.DataFrame(
            {"(Intercept)": np.ones(6, int), "batchpbmc4k": numbers % 2, "WPC1": numbers / 8},
            index=numbers + 1,
        ),
        check_column_type=False,
    )
    raw = found["raw_qc"]
    assert raw.index.tolist() == barcodes and raw.index.name == "x"
    assert raw.dtypes.astype(str).tolist() == ["int64", "int64", "float64"]
    assert raw["num_reads"].tolist() == [0, 150, 300, 450, 600, 750]
    assert found["qc_pc"].tolist() == np.arange(12.0).reshape(6, 2).tolist()
    assert found["clusters"].tolist() == [2, 0, 1, 1, 0, 2]
    assert found["list_clusters"].tolist() == ["B cells", "CD4 T cells", "NK cells"]


@pytest.mark.skipif(STRINGS, reason="pandas 3 stores texts in arrays of its own")
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_tables_of_this_pandas_are_read(tmp_path: Path, protocol: int) -> None:
    table = pd.DataFrame({"a": [1, 2], "b": [1.5, 2.5], "c": ["u", "v"]}, index=["x", "y"])
    values = {
        "table": table,
        "column": table["b"],
        "numbered": table.reset_index(drop=True),
        "empty": table.iloc[:, :0],
        "texts": ["p", None, 1.5],
        "nested": {"deep": (table["c"].to_numpy(), True)},
    }
    path = tmp_path / "tables.pickle"
    path.write_bytes(pickle.dumps(values, protocol))
    found = read_pickled_tables(path)
    for name in ("table", "numbered", "empty"):
        pd.testing.assert_frame_equal(found[name], values[name])
    pd.testing.assert_series_equal(found["column"], table["b"])
    assert found["texts"] == ["p", None, 1.5]
    assert found["nested"]["deep"][0].tolist() == ["u", "v"]


@pytest.mark.parametrize(
    "hostile",
    [
        b"cos\nsystem\n(S'touch ran'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cpandas.io.common\nget_handle\n(S'x'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
    ],
)
def test_nothing_else_is_made(
    tmp_path: Path, hostile: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.pickle").write_bytes(hostile)
    with pytest.raises(UnsafeFileError, match="Nothing was run"):
        read_pickled_tables(Path("bad.pickle"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pickle"]


def test_classes_of_the_reader_cannot_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "bad.pickle"
    # BUILD on the class itself, with a dictionary of new attributes.
    path.write_bytes(b"cpandas.core.frame\nDataFrame\n(N(S'state'\nI1\ndtb.")
    with pytest.raises(InvalidDataError, match="cannot be read"):
        read_pickled_tables(path)


def test_every_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    whole, path = OLD.read_bytes(), tmp_path / "damaged.pickle"
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 41)]
    for position in random.integers(0, len(whole), 150):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << random.integers(8)
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            read_pickled_tables(path)
        except (InvalidDataError, UnsafeFileError):
            refused += 1
    assert refused > len(damaged) // 2


def test_values_named_many_times_are_made_once(tmp_path: Path) -> None:
    value: Any = ["x"]
    for _ in range(40):
        value = [value] * 10
    path = tmp_path / "wide.pickle"
    path.write_bytes(pickle.dumps({"wide": value}))
    assert len(read_pickled_tables(path)["wide"]) == 10
    for _ in range(40):
        value = [value]
    path.write_bytes(pickle.dumps({"deep": value}))
    with pytest.raises(InvalidDataError, match="nested too deeply"):
        read_pickled_tables(path)


def test_other_contents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.pickle"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InvalidDataError, match="no dictionary of tables"):
        read_pickled_tables(path)
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InvalidDataError, match="larger than"):
        read_pickled_tables(path)
    with pytest.raises(FileNotFoundError):
        read_pickled_tables(tmp_path / "none")

"""Metrics by epoch."""

from __future__ import annotations

import pandas as pd
import pytest

from cellvae.errors import FileFormatError
from cellvae.train.history import History


@pytest.fixture
def history() -> History:
    history = History()
    history.add(0, {"elbo_train": 3.0, "kl_weight": 0.0})
    history.add(1, {"elbo_train": 2.0, "kl_weight": 0.5, "elbo_validation": 2.5})
    history.add(2, {"elbo_train": 1.0, "kl_weight": 1.0})
    return history


def test_a_metric_is_a_float_table_indexed_by_epoch(history: History) -> None:
    table = history["elbo_train"]
    pd.testing.assert_frame_equal(
        table,
        pd.DataFrame({"elbo_train": [3.0, 2.0, 1.0]}, index=pd.Index([0, 1, 2], name="epoch")),
    )
    assert list(history["elbo_validation"].index) == [1]
    assert history["elbo_train"].round(1).iloc[-1, 0] == 1.0


def test_the_table_has_every_metric_and_gaps_where_none_was_measured(history: History) -> None:
    assert list(history.table.columns) == ["elbo_train", "kl_weight", "elbo_validation"]
    assert history.table["elbo_validation"].isna().tolist() == [True, False, True]
    assert (history.table.dtypes == "float64").all()


def test_a_history_reads_like_a_dictionary(history: History) -> None:
    assert set(history) == {"elbo_train", "kl_weight", "elbo_validation"}
    assert "elbo_train" in history
    assert len(History()) == 0
    with pytest.raises(KeyError, match="Did you mean 'elbo_train'"):
        history["elbo_tran"]


def test_json_gives_the_same_history(history: History) -> None:
    again = History.from_json(history.to_json())
    pd.testing.assert_frame_equal(again.table, history.table)
    assert again.next_epoch == 3


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"epochs": [0], "metrics": {"a": [1.0, 2.0]}},
        {"epochs": 1, "metrics": {}},
        {"epochs": [None], "metrics": {}},
        {"epochs": [1, 0], "metrics": {}},
        {"epochs": [0], "metrics": {"a": ["x"]}},
    ],
)
def test_values_of_another_kind_are_refused(values: dict) -> None:
    with pytest.raises(FileFormatError):
        History.from_json(values)


def test_a_copy_grows_by_itself(history: History) -> None:
    other = history.copy()
    other.add(3, {"elbo_train": 0.5})
    other.rows[0]["elbo_train"] = 9.0
    assert history.epochs == [0, 1, 2]
    assert history.rows[0]["elbo_train"] == 3.0


def test_a_history_draws_itself(history: History) -> None:
    figure = history.plot(best_epoch=1)
    lines = figure.axes[0].get_lines()
    assert lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert any("best epoch 1" in str(line.get_label()) for line in lines)
    assert figure.axes[3].get_lines()[0].get_ydata().tolist() == [0.0, 0.5, 1.0]

"""Metrics by epoch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cellvae.errors import FileFormatError, InvalidOptionError
from cellvae.train.records.history import History


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


def test_values_of_any_kind_are_kept(history: History) -> None:
    matrix = np.array([[3, 1], [0, 4]])
    history.update("confusion", matrix)
    history.update("accuracy", np.float32(0.5), epoch=1)
    history.update("accuracy", 0.75)
    assert history.latest("accuracy") == 0.75
    assert history.values_of("accuracy") == [0.5, 0.75]
    assert history.latest("confusion") is matrix
    assert history.objects["confusion"] == {2: matrix}
    assert history.metric_names == [*history.names, "confusion"]
    history.notes["before"] = {"nmi": 0.1, "when": [1, 2]}
    again = History.from_json(json.loads(json.dumps(history.to_json())))
    assert np.array_equal(again.latest("confusion"), matrix)
    assert again.notes == history.notes
    pd.testing.assert_frame_equal(again.table, history.table)
    history.update("odd", object())
    history.update("odd", np.zeros((0, 3), dtype=np.int8), epoch=1)
    odd = History.from_json(history.to_json()).objects["odd"]
    assert list(odd) == [1]
    assert odd[1].shape == (0, 3) and odd[1].dtype == np.int8
    history.update("tensor", torch.tensor(0.25))
    assert history.latest("tensor") == 0.25
    history.delete("tensor")
    history.delete("confusion")
    history.delete("elbo_validation")
    assert history.metric_names == ["elbo_train", "kl_weight", "accuracy", "odd"]
    for wrong in (history.latest, history.delete, history.values_of):
        with pytest.raises(KeyError, match="Did you mean 'accuracy'"):
            wrong("acuracy")


def test_names_have_a_prefix_within_a_context(history: History) -> None:
    with history.with_prefix("ema_"):
        history.update("elbo_train", 0.9)
        history.update("confusion", [1])
        history.update("matrix", {"array": [1, 2]})
    assert History.from_json(history.to_json()).latest("ema_matrix") == {"array": [1, 2]}
    history.update("plain", 1.0)
    assert history.latest("ema_elbo_train") == 0.9
    assert history.latest("elbo_train") == 1.0
    assert "ema_confusion" in history.objects
    assert "plain" in history


def test_the_end_of_a_history_can_be_forgotten(history: History) -> None:
    history.update("confusion", [1], epoch=0)
    history.update("confusion", [2], epoch=2)
    history.truncate(1)
    assert history.epochs == [0]
    assert history.names == ["elbo_train", "kl_weight"]
    assert history.objects["confusion"] == {0: [1]}
    history.truncate(0)
    assert history.metric_names == []
    history.add(0, {"elbo_train": 3.0})
    history.add(1, {"elbo_train": 7.0})
    assert history["elbo_train"]["elbo_train"].tolist() == [3.0, 7.0]


def test_runs_are_told_apart(history: History, tmp_path: Path) -> None:
    history.begin_run()
    history.add(3, {"elbo_train": 0.5})
    assert history.runs == [0, 0, 0, 1]
    assert History.from_json(history.to_json()).runs == history.runs
    history.to_csv(tmp_path / "history.csv")
    read = pd.read_csv(tmp_path / "history.csv", index_col="epoch")
    assert read["run"].tolist() == history.runs
    assert read["elbo_train"].tolist() == [3.0, 2.0, 1.0, 0.5]


def test_files_of_the_first_version_are_read() -> None:
    old = History.from_json({"epochs": [0, 1], "metrics": {"a": [1.0, None], "b": [None, 2.0]}})
    assert old.runs == [0, 0]
    assert old.names == ["a", "b"]


def test_any_metrics_are_drawn(history: History) -> None:
    figure = history.plot(metrics=["kl_weight", "elbo_validation"], best_epoch=1)
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["kl_weight", "elbo_validation"]
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(InvalidOptionError, match="Did you mean 'kl_weight'"):
        history.plot(metrics=["kl_wait"])


def test_epochs_go_up_and_values_belong_to_one_of_them(history: History) -> None:
    for wrong in (
        lambda: history.update("x", 2.0, epoch=7),
        lambda: History().update("before", 1.0),
        lambda: history.add(-1, {"x": 1.0}),
    ):
        with pytest.raises(InvalidOptionError, match="Expected an epoch"):
            wrong()
    assert history.next_epoch == 3


def test_a_metric_may_be_called_run(history: History, tmp_path: Path) -> None:
    history.update("run", 5.0)
    history.to_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text().startswith("epoch,run,elbo_train")


def test_notes_of_a_copy_are_its_own(history: History) -> None:
    history.notes["scores"] = [1]
    history.copy().notes["scores"].append(2)
    assert history.notes == {"scores": [1]}

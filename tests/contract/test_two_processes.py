"""Every model of the table trains in two processes as it does in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("train_in_two_processes.py")
WORDS: dict[str, Any] = {
    "max_epochs": 2, "batch_size": 31, "train_size": 0.8, "accelerator": "cpu", "seed": 0,
    "enable_progress_bar": False, "check_val_every_n_epoch": 1, "plan_kwargs": {"lr": 0.01},
}  # fmt: skip
pytestmark = [pytest.mark.trains, pytest.mark.slow]


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the two processes have seen, by model; one script trains all models, one by one."""
    folder = tmp_path_factory.mktemp("two_processes")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), json.dumps(WORDS)],
        capture_output=True, text=True, check=False, timeout=600, env=environment, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    # Warnings of torch's C++ do not pass through Python.
    assert "Warning" not in done.stderr, done.stderr[-3000:]
    assert done.stdout == ""
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return first, second


def test_processes_end_with_the_same_model_and_say_nothing(case: Any, both: Any) -> None:
    first, second = (each[case.label] for each in both)
    assert first["warnings"] == second["warnings"] == []
    for what in ("parameters", "buffers", "classifier", "history", "report", "train"):
        assert first[what] == second[what], what


def test_processes_see_each_cell_once_an_epoch(case: Any, both: Any) -> None:
    first, second = (each[case.label] for each in both)
    assert len(first["train"]) == 77  # does not divide by two
    assert len(first["cells"]) == len(second["cells"]) == 2
    for own, other in zip(first["cells"], second["cells"], strict=True):
        assert Counter(own + other) == Counter(first["train"])
    assert set(first["cells"][0]) != set(first["cells"][1])


def test_history_and_report_are_those_of_one_process(case: Any, both: Any) -> None:
    found = both[0][case.label]
    alone = case.made()
    alone.train(**WORDS)
    report = alone.training_report
    expected = [report.status, report.epochs, report.max_epochs, report.seed, report.best_epoch]
    assert found["report"] == expected
    assert found["train"] == alone.train_indices.tolist()
    assert found["epochs"] == alone.history.epochs
    assert list(found["history"]) == list(alone.history.table)
    for name in ("elbo_train", "elbo_validation"):
        one = alone.history.table[name].to_numpy()
        np.testing.assert_allclose(found["history"][name], one, rtol=0.15, err_msg=name)
    if "kl_weight" in found["history"]:
        assert found["history"]["kl_weight"] == alone.history.table["kl_weight"].tolist()

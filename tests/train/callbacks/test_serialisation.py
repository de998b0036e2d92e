"""Callbacks as plain values, and back."""

from __future__ import annotations

import json
from typing import Any

import lightning.pytorch as pl
import pytest

from cellvae.errors import FileFormatError
from cellvae.train import (
    EMA,
    EarlyStopping,
    EpochBar,
    Freeze,
    GradNormMonitor,
    IntegrationEvaluation,
    LRMonitor,
    LRSchedulerCallback,
    NaNGuard,
    PredictionWriter,
    PrintMetrics,
    ResourceMonitor,
    RetrievalEvaluation,
    RunLogger,
    SaveCheckpoint,
    Summary,
    TrainingCheckpoint,
)
from cellvae.train.callbacks.serialisation import describe_callback, rebuild_callback

MADE = [
    EMA(decay=0.5, every="epoch"),
    EarlyStopping(["elbo_validation", "train_loss"], patience=[3, 4], combine="all"),
    EpochBar(3),
    Freeze("z_encoder", until_epoch=4),
    GradNormMonitor(per_layer=True),
    IntegrationEvaluation("batch", "cell_type", n_cells=77, k=9),
    LRMonitor(log_momentum=True),
    LRSchedulerCallback("cosine"),
    NaNGuard("skip_batch", max_skipped=0.25),
    PredictionWriter("z.h5ad"),
    PrintMetrics(3, ["elbo_train"]),
    ResourceMonitor("resources.tsv"),
    RetrievalEvaluation([1, 2, 3], label_key="cell_type", k=5),
    RunLogger("run"),
    SaveCheckpoint("best", monitor="train_loss", epochs=[1, 5], save_last=True),
    Summary(),
    TrainingCheckpoint("state", keep_last=3),
]


@pytest.mark.parametrize("callback", MADE, ids=lambda c: type(c).__name__)
def test_a_callback_is_made_again_from_its_description(callback: pl.Callback) -> None:
    values = json.loads(json.dumps(describe_callback(callback)))
    again = rebuild_callback(values)
    assert type(again) is type(callback)
    assert describe_callback(again) == describe_callback(callback)
    assert values["arguments"], "every argument is kept under its name"


def test_what_a_file_cannot_hold_is_described_and_not_made() -> None:
    values = describe_callback(Freeze(lambda name, parameter: True))
    assert "function" in values["arguments"]["modules"]["repr"]
    with pytest.raises(FileFormatError, match="'modules' of Freeze is an object of a program"):
        rebuild_callback(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"class": "os.system", "arguments": {}}, "class of a callback"),
        ({"class": "EarlyStoping"}, "Did you mean 'EarlyStopping'"),
        ({"class": "History"}, "class of a callback"),
        ({"class": "EMA", "arguments": {"decey": 0.5}}, "Did you mean 'decay'"),
        ({"class": "EMA", "arguments": [1]}, "as an object"),
        ({"class": "Freeze", "arguments": {}}, "arguments that Freeze needs"),
        ({}, "got None"),
    ],
)
def test_only_callbacks_of_the_package_are_made(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(FileFormatError, match=expected):
        rebuild_callback(values)

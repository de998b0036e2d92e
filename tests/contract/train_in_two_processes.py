"""Trains every model of the table in two processes, given a folder and arguments of `train`.

Each process writes what it has seen to FOLDER/rank.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from conftest import CASES


class NoteCells(pl.Callback):
    """Notes the cells of all steps, by epoch."""

    def __init__(self) -> None:
        self.cells: list[list[int]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.cells.append([])

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        n_own = batch.steps.shape[1] - getattr(batch.rows, "n_labelled", 0)
        self.cells[-1] += batch.steps[:, :n_own].flatten().tolist()


def hash_of(tensors: Any) -> str:
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()


def train_one(case: Any) -> dict[str, Any]:
    note = NoteCells()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = case.made()
        model.train(devices=2, callbacks=[note], **json.loads(sys.argv[2]))
    report = model.training_report
    step = {} if model.carryover is None else model.carryover.step
    # Statistics of batch normalisation are of the cells of each process.
    classifier = [
        v for k, v in step.get("classifier", {}).items() if k.endswith(("weight", "bias"))
    ]
    return {
        "parameters": hash_of(model.module.parameters()),
        "buffers": hash_of(model.module.buffers()),
        "classifier": hash_of(classifier),
        "train": model.train_indices.tolist(),
        "epochs": model.history.epochs,
        "history": {k: v.tolist() for k, v in model.history.table.items()},
        "report": [report.status, report.epochs, report.max_epochs, report.seed, report.best_epoch],
        "cells": note.cells,
        "warnings": [str(each.message) for each in seen],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {case.label: train_one(case) for case in CASES}
    rank = os.environ.get("LOCAL_RANK", "0")
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(found))

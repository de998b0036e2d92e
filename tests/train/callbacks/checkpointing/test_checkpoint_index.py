"""The index beside checkpoints says what was written, or nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from cellvae.train.callbacks.checkpointing.checkpoint_index import (
    INDEX_FILE,
    CheckpointRecord,
    read_index,
    write_index,
)


@pytest.fixture
def saved(tmp_path: Path) -> list[CheckpointRecord]:
    models = []
    for epoch in (1, 2):
        path = tmp_path / f"epoch={epoch}"
        path.mkdir()
        models.append(
            CheckpointRecord(
                path=path,
                epoch=epoch,
                step=10 * epoch,
                reasons=("best",),
                score=1.25 * epoch,
                metrics={"elbo_train": 100.5, "lost": float("nan")},
                run_id="a1",
            )
        )
    write_index(tmp_path, models, "a1")
    return models


def test_every_flip_and_cut_of_the_index_is_told_or_says_the_same(
    saved: list[CheckpointRecord], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / INDEX_FILE
    content = path.read_bytes()
    expected = repr(read_index(tmp_path))
    assert expected == repr(saved)
    random = np.random.default_rng(0)
    damaged = [content[:length] for length in range(len(content))]
    for place, bit in enumerate(random.integers(0, 8, len(content)).tolist()):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        damaged.append(bytes(changed))
    for other in damaged:
        path.write_bytes(other)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "cellvae"):
            found = read_index(tmp_path)
        if found:
            assert repr(found) == expected
        else:
            assert "checkpoints.json cannot be read" in caplog.text


def test_an_index_of_the_first_version_has_no_checksum(
    saved: list[CheckpointRecord], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / INDEX_FILE
    values = json.loads(path.read_text())
    values.pop("sha256")
    path.write_text(json.dumps(values | {"version": 1}))
    assert repr(read_index(tmp_path)) == repr(saved)
    path.write_text(json.dumps(values))
    assert read_index(tmp_path) == []

"""Models that released versions saved are loaded by this one, and answer as they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import cellvae
from cellvae.errors import FileFormatError
from cellvae.persistence.migrations import RECORD_FORMAT

RELEASED = Path(__file__).with_name("released")
SAVED = sorted(path.parent for path in RELEASED.glob("*/*/model.json"))


def test_every_format_has_a_released_model_of_each_kind() -> None:
    found: dict[int, set[str]] = {}
    for folder in SAVED:
        record = json.loads((folder / "model.json").read_text())
        assert record["library_version"] == folder.parent.name
        found.setdefault(record["format"], set()).add(record["model"])
    # The newest format has no released models until it is released.
    assert set(range(1, RECORD_FORMAT)) <= set(found) <= set(range(1, RECORD_FORMAT + 1))
    assert found[1] == {"SCVI", "SCANVI", "LinearSCVI", "PEAKVI", "POISSONVI", "AmortizedLDA"}


@pytest.mark.trains
@pytest.mark.parametrize("folder", SAVED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_released_model_answers_as_it_did(folder: Path) -> None:
    cells = anndata.read_h5ad(folder.parent / "cells.h5ad")
    if folder.name == "query":
        cells.obs["batch"] = "new"
    given = None if folder.name == "minified" else cells
    model: Any = cellvae.load(folder, given)
    with np.load(folder.parent / "answers.npz") as answers:
        expected = answers[folder.name]
    np.testing.assert_allclose(model.get_latent_representation(), expected, atol=1e-6)
    assert model.is_trained and len(model.history.epochs) == 2
    assert model.training_report.status == "completed"
    assert bool(model.module.frozen_weights) == (folder.name == "query")
    if given is not None:
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)


def test_a_model_of_a_later_format_says_what_to_install(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    shutil.copytree(SAVED[0], folder)
    record = json.loads((folder / "model.json").read_text())
    record |= {"format": RECORD_FORMAT + 1, "library_version": "7.1.0"}
    (folder / "model.json").write_text(json.dumps(record))
    with pytest.raises(FileFormatError, match=r'pip install --upgrade "cellvae>=7\.1\.0"'):
        cellvae.load(folder)

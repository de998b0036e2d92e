"""A model of one's own may read fields, and know labels, that no other model has."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from torch import Tensor

import cellvae
from cellvae.data.setup.fields import Category, Counts
from cellvae.model import MODELS

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "own_torch_model.py"


class Batch(NamedTuple):
    """Batch of the example, with one more field."""

    counts: Tensor
    batch: Tensor
    site: Tensor


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("cellvae.model.models.MODELS", dict(MODELS))
    example = runpy.run_path(str(EXAMPLE))

    class Labelled(example["PoissonVAE"]):  # type: ignore[misc]
        """The example with a field of a new name, and labels that training does not use."""

        Batch = Batch

        @staticmethod
        def fields(keys: Any) -> tuple[Any, ...]:
            return Counts("counts", keys.layer), Category("batch", keys.batch_key), Category("site")

        @staticmethod
        def build(registration: Any, config: Any) -> Any:
            return example["PoissonVAE"].build(registration, config)

        def training_labels(self) -> Any:
            return np.zeros(len(self.rows), dtype=np.int64)

    adata = cellvae.data.synthetic_iid(batch_size=32)
    Labelled.setup_anndata(adata, batch_key="batch")
    return Labelled(adata)


def test_the_registry_has_fields_that_scvi_tools_does_not_know(model: Any) -> None:
    fields = model.registry["field_registries"]
    assert [*fields] == ["X", "batch", "site"]
    assert model.adata_manager.summary_stats["n_site"] == 1
    assert model.get_state_registry("site")["original_key"] == "_scvi_site"


@pytest.mark.trains
def test_training_does_not_need_a_batch_that_counts_labelled_cells(model: Any) -> None:
    assert model.training_labels() is not None
    model.train(max_epochs=1, enable_progress_bar=False)
    assert model.is_trained

"""Learned vectors of batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def test_each_cell_has_the_vector_of_its_batch(trained: Callable[..., SCVI]) -> None:
    model = trained(batch_representation="embedding")
    vectors = model.module.batch_embedding.weight.detach().numpy()
    got = model.get_batch_representation(batch_size=7)
    assert got.dtype == np.float32
    assert np.array_equal(got, vectors[np.arange(60) % 3])
    few = model.get_batch_representation(indices=[4, 0, 5])
    assert np.array_equal(few, vectors[[1, 0, 2]])


def test_batches_of_another_anndata_are_found_by_name(trained: Callable[..., SCVI]) -> None:
    model = trained(batch_representation="embedding")
    other = model.adata[::-1].copy()
    other.obs["batch"] = other.obs["batch"].cat.reorder_categories(["b2", "b0", "b1"])
    assert np.array_equal(
        model.get_batch_representation(other), model.get_batch_representation()[::-1]
    )


def test_models_without_vectors_say_how_to_get_them(trained: Callable[..., SCVI]) -> None:
    with pytest.raises(InvalidOptionError, match="batch_representation='embedding'"):
        trained().get_batch_representation()

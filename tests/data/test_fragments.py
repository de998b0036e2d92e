"""Fragments from reads, and zeros and ones told from counts."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.data import Registration, reads_to_fragments
from cellvae.data.setup.fields import CountsRecord, record_from_json
from cellvae.errors import DataMismatchError, DataWarning, InvalidDataError, UnknownKeyError
from cellvae.model import PEAKVI, POISSONVI

READS = np.array([[0, 1, 2], [3, 4, 7]], dtype=np.float32)


@pytest.mark.parametrize("kind", [np.array, sparse.csr_matrix, sparse.csc_matrix])
def test_fragments_are_half_the_reads_rounded_up(kind: type) -> None:
    adata = AnnData(kind(READS))
    reads_to_fragments(adata)
    found = adata.layers["fragments"]
    dense = found.toarray() if sparse.issparse(found) else found
    np.testing.assert_array_equal(dense, [[0, 1, 1], [2, 2, 4]])
    before = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
    np.testing.assert_array_equal(before, READS)
    adata.layers["reads"] = adata.X * 2
    reads_to_fragments(adata, "reads", "again")
    again = adata.layers["again"]
    np.testing.assert_array_equal(again.toarray() if sparse.issparse(again) else again, READS)


def test_what_are_no_reads_is_refused() -> None:
    with pytest.raises(UnknownKeyError, match="Did you mean 'reads'"):
        reads_to_fragments(AnnData(READS, layers={"reads": READS}), "read")
    with pytest.raises(InvalidDataError, match="whole numbers"):
        reads_to_fragments(AnnData(READS / 2))
    with pytest.raises(InvalidDataError, match="whole numbers"):
        reads_to_fragments(AnnData(-READS))


def cells(most: int) -> AnnData:
    random = np.random.default_rng(0)
    counts = random.integers(0, most + 1, (20, 6)).astype(np.float32)
    counts[:, 0] = most
    return AnnData(sparse.csr_matrix(counts))


def test_zeros_and_ones_are_known_as_such() -> None:
    for most, binary in ((1, True), (2, False)):
        adata = cells(most)
        PEAKVI.setup_anndata(adata)
        model = PEAKVI(adata)
        assert model.registration.binary == binary
        again = Registration.from_json(model.registration.to_json(), PEAKVI.Keys)
        assert again == model.registration
    old = {"kind": "counts", "layer": None, "integers": True}
    assert record_from_json(old, "counts") == CountsRecord(integers=True)


@pytest.mark.trains
def test_counts_are_refused_where_zeros_and_ones_were_learned() -> None:
    adata = cells(1)
    PEAKVI.setup_anndata(adata)
    model = PEAKVI(adata, n_hidden=4)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, early_stopping=False)
    with pytest.raises(DataMismatchError, match="zeros and ones.* got counts up to 3"):
        model.get_latent_representation(cells(3))
    assert model.get_latent_representation(cells(1)).shape[0] == 20


def test_fragments_that_are_zeros_and_ones_are_warned_about() -> None:
    adata = cells(1)
    POISSONVI.setup_anndata(adata)
    with pytest.warns(DataWarning, match="got zeros and ones"):
        POISSONVI(adata)

"""Arguments that the functions of inference share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.data import Registration
from cellvae.data.setup.fields import count_fields
from cellvae.data.setup.keys import CountKeys
from cellvae.errors import InvalidOptionError, UnknownKeyError
from cellvae.inference.arguments import batch_codes, gene_names, gene_positions


def registered(batches: list[object] | None) -> Registration:
    """Registration of cells that come from these batches."""
    obs = None if batches is None else pd.DataFrame({"b": batches}, index=list("wxyz"))
    adata = AnnData(np.ones((4, 2), dtype=np.float32), obs=obs)
    keys = CountKeys(batch_key=None if batches is None else "b")
    return Registration.of(adata, keys, count_fields(keys))


def test_names_become_codes() -> None:
    registration = registered(["s", "p", "q", "s"])
    assert batch_codes(registration, "q") == [1]
    assert batch_codes(registration, None) == [None]
    assert batch_codes(registration, ["s", None, "p"]) == [2, None, 0]
    assert batch_codes(registration, np.array(["s", "p"])) == [2, 0]
    assert batch_codes(registration, registration.categories("batch")) == [0, 1, 2]


def test_numbers_are_names_and_not_codes() -> None:
    registration = registered([7, 5, 7, 9])
    assert batch_codes(registration, 9) == [2]
    assert batch_codes(registration, np.int64(5)) == [0]
    with pytest.raises(UnknownKeyError, match="one of '5', '7', '9'; got '0'"):
        batch_codes(registration, 0)


def test_unknown_batches_are_refused_with_the_close_one() -> None:
    with pytest.raises(UnknownKeyError, match=r"got 'lan_a'\. Did you mean 'lane_a'"):
        batch_codes(registered(["lane_a", "lane_b"] * 2), ["lane_b", "lan_a"])
    with pytest.raises(InvalidOptionError, match="at least one batch"):
        batch_codes(registered(None), [])


def test_genes_become_positions_in_the_order_asked() -> None:
    genes = ("CD3D", "LYZ", "NKG7")
    assert gene_positions(genes, None) is None
    positions = gene_positions(genes, np.array(["NKG7", "CD3D", "NKG7"]))
    assert torch.equal(positions, torch.tensor([2, 0, 2]))
    assert gene_names(genes, positions) == ["NKG7", "CD3D", "NKG7"]
    assert gene_names(genes, None) == list(genes)
    with pytest.raises(UnknownKeyError, match=r"got 1 other: 'CD3E'\. Did you mean 'CD3D'"):
        gene_positions(genes, ["LYZ", "CD3E"])

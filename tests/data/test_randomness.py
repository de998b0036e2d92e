"""Nothing in data draws from the global generators."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellvae.data import CountKeys, Registration, split_cells, synthetic_iid
from cellvae.data.batches.batching import map_batches
from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.setup.fields import count_fields
from cellvae.data.setup.keys import store_keys


class Batch(NamedTuple):
    """What a model of counts reads."""

    counts: Tensor
    batch: Tensor
    labels: Tensor


def global_states() -> tuple[str, bytes, str]:
    return repr(np.random.get_state()), bytes(torch.get_rng_state()), repr(random.getstate())


def test_from_the_anndata_to_the_last_batch_no_global_number_is_drawn() -> None:
    before = global_states()
    adata = synthetic_iid(sparse_format="csr_matrix", generate_coordinates=True)
    keys = CountKeys(batch_key="batch", labels_key="labels")
    store_keys(adata, "SCVI", keys)
    fields = count_fields(keys)
    rows = Registration.of(adata, keys, fields).read(adata, fields, Batch)
    split = split_cells(adata.n_obs, seed=1)
    for block in EpochBlocks(rows, split.train, 32, seed=1, prefetch=1):
        block.rows.take(block.steps[0])
    map_batches(lambda batch: batch.counts, rows, split.validation, 16)
    assert global_states() == before

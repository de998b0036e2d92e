"""Checks of minified cells: which model minified them, and whether their counts are there."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import nn

from cellvae.data.setup.minified import MINIFIED_KEY, SCVI_UNS_KEY, MinifiedRecord, minified_record
from cellvae.data.storage.column import lacks_counts
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import DataMismatchError

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData


def weights_digest(module: nn.Module) -> str:
    """Digest of all weights of a network, the same on every device."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_minified_by(record: MinifiedRecord, module: nn.Module) -> None:
    """Refuse an AnnData that was minified by another network.

    Raises
    ------
    DataMismatchError
        If its latent posterior is that of other weights.
    """
    if record.weights and record.weights != weights_digest(module):
        raise DataMismatchError(
            "Expected an AnnData that this model has minified; the latent in this one is that of "
            "another model, or of other weights. Load the model that minified it, or give the "
            "AnnData with counts."
        )


def refuse_minified(adata: AnnData | None, purpose: str) -> None:
    """Refuse a minified AnnData where a model learns from counts.

    Raises
    ------
    DataMismatchError
        If the AnnData is minified.
    """
    if adata is not None and minified_record(adata) is not None:
        raise DataMismatchError(
            f"Expected an AnnData with counts that is not minified to {purpose}; got a minified "
            "one, which holds what a trained model has made of the counts. Give the AnnData that "
            f"it was made from; where the counts were kept, del adata.uns['{MINIFIED_KEY}'], "
            f"adata.uns['{SCVI_UNS_KEY}'] does too."
        )


def check_has_counts(rows: ColumnRows[Any]) -> None:
    """Refuse minified cells whose counts were dropped.

    Raises
    ------
    DataMismatchError
        If the counts were dropped.
    """
    if lacks_counts(rows):
        raise DataMismatchError(
            "Expected cells with their counts, which this needs; got a minified AnnData without. "
            "Give the AnnData that it was made from, or minify with "
            "minified_data_type='latent_posterior_parameters_with_counts'."
        )

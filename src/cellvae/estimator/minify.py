"""Minified data of a model: the latent is kept, the counts are dropped."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, get_args

import torch
from torch import nn

from cellvae.data.setup.minified import (
    SCVI_UNS_KEY,
    UNS_KEY,
    MinifiedRecord,
    MinifiedType,
    StoredPosterior,
    make_minified,
    minified_record,
)
from cellvae.data.storage.dropped_counts import lacks_counts
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import DataMismatchError, InvalidOptionError, did_you_mean
from cellvae.inference.cell_pass import inference_mode, plan_pass

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData

    from cellvae.inference.protocols import DecoderModel


def minify(
    model: DecoderModel, data_type: MinifiedType, qzm_key: str, qzv_key: str, *, silent: bool
) -> AnnData:
    """Minified copy of the cells of a model.

    Raises
    ------
    InvalidOptionError
        If the type does not exist, or both keys are the same.
    DataMismatchError
        If the counts were dropped already, or there are no cells.
    """
    types = get_args(MinifiedType)
    if data_type not in types:
        raise InvalidOptionError(
            f"Expected minified_data_type to be one of {', '.join(types)}; got {data_type!r}."
            f"{did_you_mean(str(data_type), types)}"
        )
    if qzm_key == qzv_key:
        raise InvalidOptionError(
            f"Expected two different keys for mean and variance; got '{qzm_key}' twice."
        )
    cells = plan_pass(model, None, None, None, silent=silent, counts=True)
    adata = model.adata
    assert adata is not None
    means, variances, sizes, size_means, size_variances = [], [], [], [], []
    with inference_mode(model):
        for _, batch in cells.iter_batches():
            latent = model.module.encode(batch)
            means.append(latent.posterior.loc.cpu())
            variances.append(latent.posterior.variance.cpu())
            sizes.append(batch.counts.sum(dim=-1).cpu())
            if latent.log_library_posterior is not None:
                size_means.append(latent.log_library_posterior.loc.squeeze(-1).cpu())
                size_variances.append(latent.log_library_posterior.variance.squeeze(-1).cpu())
    posterior = StoredPosterior(
        mean=torch.cat(means).float().numpy(),
        variance=torch.cat(variances).float().numpy(),
        library_size=torch.cat(sizes).float().numpy(),
        log_library_mean=torch.cat(size_means).float().numpy() if size_means else None,
        log_library_variance=torch.cat(size_variances).float().numpy() if size_means else None,
    )
    record = MinifiedRecord(
        data_type=data_type,
        qzm_key=qzm_key,
        qzv_key=qzv_key,
        weights=weights_digest(model.module),
    )
    return make_minified(adata, record, posterior)


def weights_digest(module: nn.Module) -> str:
    """Digest of all weights of a network, the same on every device."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_minified_by(record: MinifiedRecord, module: nn.Module) -> None:
    """Refuse an AnnData whose latent another network has made.

    Raises
    ------
    DataMismatchError
        If so.
    """
    if record.weights and record.weights != weights_digest(module):
        raise DataMismatchError(
            "Expected an AnnData that this model has minified; the latent in this one is that of "
            "another model, or of other weights. Load the model that minified it, or give the "
            "AnnData with counts."
        )


def refuse_minified(adata: AnnData | None, aim: str) -> None:
    """Refuse minified cells for something that learns from counts.

    Raises
    ------
    DataMismatchError
        If the AnnData is minified.
    """
    if adata is not None and minified_record(adata) is not None:
        raise DataMismatchError(
            f"Expected an AnnData with counts that is not minified to {aim}; got a minified one, "
            "which holds what a trained model has made of the counts. Give the AnnData that it "
            f"was made from; where the counts were kept, del adata.uns['{UNS_KEY}'], "
            f"adata.uns['{SCVI_UNS_KEY}'] does too."
        )


def check_has_counts(rows: ColumnRows[Any]) -> None:
    """Refuse cells whose counts were dropped.

    Raises
    ------
    DataMismatchError
        If so.
    """
    if lacks_counts(rows):
        raise DataMismatchError(
            "Expected cells with their counts, which this needs; got a minified AnnData without. "
            "Give the AnnData that it was made from, or minify with "
            "minified_data_type='latent_posterior_parameters_with_counts'."
        )

"""Minification: an AnnData that holds the latent posterior of each cell in place of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import torch

from cellvae.data.mudata_adapter import is_mudata
from cellvae.data.setup.minified import (
    MinifiedRecord,
    MinifiedType,
    StoredPosterior,
    make_minified,
)
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.estimator.base_model import BaseModel
from cellvae.estimator.minified_cells import weights_digest
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.posterior_samples import first_observed

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import DecoderModel


class MinifyMixin(BaseModel):
    """A model whose AnnData can be minified."""

    def minify_adata(
        self,
        minified_data_type: MinifiedType = "latent_posterior_parameters",
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
        silent: bool = False,
    ) -> None:
        """Replace the model's AnnData by one with the latent posterior of each cell, not counts.

        `model.adata` becomes a new AnnData, the original is not changed; without counts, `X` and
        layers of the new one are empty sparse matrices. Methods that need no counts use the stored
        posterior and return the same as before, also after saving and loading; the others, and
        further training, are refused.

        Parameters
        ----------
        minified_data_type
            `"latent_posterior_parameters"`, or `"latent_posterior_parameters_with_counts"` to keep
            the counts too.
        use_latent_qzm_key, use_latent_qzv_key
            Entries of `adata.obsm` for mean and variance of the posterior. The sum of the counts
            of each cell is stored in `adata.obs["observed_lib_size"]`, and sizes that an encoder
            computes in `adata.obs["latent_log_library"]` and `adata.obs["latent_log_depth"]`.
        silent
            Whether no progress is shown.

        Raises
        ------
        NotTrainedError
            If the model has not been trained.
        DataMismatchError
            If the counts were dropped already, or there are no cells.
        InvalidOptionError
            If the type does not exist, or both keys are the same.
        """
        model: Any = self
        minified = minify(
            model, minified_data_type, use_latent_qzm_key, use_latent_qzv_key, silent=silent
        )
        self.attach(minified, new=False)


def minify_mudata(
    model: Any,
    minified_data_type: MinifiedType = "latent_posterior_parameters",
    use_latent_qzm_key: str = "X_latent_qzm",
    use_latent_qzv_key: str = "X_latent_qzv",
    silent: bool = False,
) -> None:
    """Replace the model's MuData by one with the latent posterior of each cell, not counts.

    Parameters
    ----------
    minified_data_type, use_latent_qzm_key, use_latent_qzv_key, silent
        As for `minify_adata`, which does the same for a MuData.

    Raises
    ------
    InvalidOptionError
        If the cells of the model are an AnnData, or as for `minify_adata`.
    NotTrainedError, DataMismatchError
        As for `minify_adata`.
    """
    if model.adata is not None and not is_mudata(model.adata):
        raise InvalidOptionError(
            "Expected a model of a MuData for minify_mudata; this one has an AnnData. Call "
            "minify_adata()."
        )
    model.minify_adata(minified_data_type, use_latent_qzm_key, use_latent_qzv_key, silent)


def minify(
    model: DecoderModel, data_type: MinifiedType, qzm_key: str, qzv_key: str, *, silent: bool
) -> AnnData:
    """Minified copy of the AnnData of a model.

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
    posterior = encode_cells(model, silent=silent)
    assert model.adata is not None
    record = MinifiedRecord(
        data_type=data_type,
        qzm_key=qzm_key,
        qzv_key=qzv_key,
        weights=weights_digest(model.module),
    )
    return make_minified(model.adata, record, posterior)


def encode_cells(model: DecoderModel, *, silent: bool) -> StoredPosterior:
    """Posterior of latent and library size, and sum of counts, of each cell of a model."""
    cells = plan_pass(model, None, None, None, silent=silent, counts=True)
    means, variances, library_sizes, library_means, library_variances = [], [], [], [], []
    sizes: dict[str, list[torch.Tensor]] = {name: [] for name in model.module.stored_sizes}
    with inference_mode(model):
        for _, batch in cells.iter_batches():
            latent = model.module.encode(batch)
            means.append(latent.posterior.loc.cpu())
            variances.append(latent.posterior.variance.cpu())
            library_sizes.append(first_observed(model.module, batch).sum(dim=-1).cpu())
            library = getattr(latent, "log_library_posterior", None)
            if library is not None:
                library_means.append(library.loc.squeeze(-1).cpu())
                library_variances.append(library.variance.squeeze(-1).cpu())
            for name, values in sizes.items():
                values.append(getattr(latent, name).squeeze(-1).cpu())
    return StoredPosterior(
        mean=torch.cat(means).float().numpy(),
        variance=torch.cat(variances).float().numpy(),
        library_size=torch.cat(library_sizes).float().numpy(),
        log_library_mean=torch.cat(library_means).float().numpy() if library_means else None,
        log_library_variance=(
            torch.cat(library_variances).float().numpy() if library_means else None
        ),
        sizes={name: torch.cat(values).float().numpy() for name, values in sizes.items()},
    )

"""Library sizes of cells under a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.data.files.streaming_writer import check_new_file
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values, write_values
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def get_latent_library_size(
    model: EncoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    give_mean: bool = True,
    batch_size: int | None = None,
    silent: bool = False,
    *,
    out: str | Path | None = None,
) -> np.ndarray | Path:
    """Library size of each cell, in counts.

    A latent library size has a log-normal posterior. An observed one is the sum of the counts, and
    `give_mean` has no effect.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Genes are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    give_mean
        Whether the posterior mean is returned; otherwise one sample of the posterior.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.
    out
        New file (`.h5ad` or `.zarr`) that the result is written to batch by batch. It holds an
        AnnData with `obs["library_size"]`.

    Returns
    -------
    Array [cells, 1] in the requested order; with `out` the path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, `batch_size` is below 1, or the file exists.
    OutputError
        If the file cannot be written.
    """
    path = None if out is None else check_new_file(out)
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)

    def values_of(module: Any, batch: Any) -> dict[str, Tensor]:
        """Library size of each cell of a batch."""
        latent: Any = module.encode(batch)
        log_library, posterior = latent.log_library, latent.log_library_posterior
        if give_mean and posterior is not None:
            log_library = posterior.loc + posterior.variance / 2
        return {"library_size": log_library.exp().squeeze(-1)}

    if path is not None:
        return write_values(model, adata, cell_pass, values_of, path)
    return collect_values(model, cell_pass, values_of)["library_size"][:, None]

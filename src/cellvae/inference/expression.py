"""Normalized expression of cells, streamed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from cellvae.data.matrix_file import MatrixFile, check_new_file
from cellvae.inference.averages import Wanted, decoded_parts, mean_expression
from cellvae.inference.counterfactual import BatchChoice, batch_codes
from cellvae.inference.draws import draw_latent
from cellvae.inference.expression_arguments import (
    check_library_size,
    check_samples,
    check_weights,
)
from cellvae.inference.genes import gene_positions, names_at
from cellvae.inference.pass_over import Pass, evaluating, pass_over
from cellvae.inference.protocols import HasDecoder

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


def get_normalized_expression(
    model: HasDecoder,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    transform_batch: BatchChoice = None,
    gene_list: Iterable[str] | None = None,
    library_size: float | Literal["latent"] = 1.0,
    n_samples: int = 1,
    n_samples_overall: int | None = None,
    weights: Literal["uniform", "importance"] | None = None,
    batch_size: int | None = None,
    return_mean: bool = True,
    return_numpy: bool | None = None,
    silent: bool = False,
    *,
    out: str | Path | None = None,
) -> pd.DataFrame | np.ndarray | Path:
    """Expression of each gene in each cell, as the decoder has it, without the noise of counting.

    Means are summed up as the draws are made: beside the result, memory holds one batch of cells.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those that the model was made with. Genes are matched by name.
    indices
        Cells asked for, by number, mask or name; None for all.
    transform_batch
        Batch that cells are decoded as if they came from, by name; several are averaged. None is
        the batch that each cell has.
    gene_list
        Genes asked for, in the order asked; None for all.
    library_size
        Size that expression is scaled to: 1 gives shares of the cell, 10,000 counts per 10,000.
        `"latent"` gives expected counts (before zero inflation) at the size of each cell. With size
        factors, expression is per unit of size.
    n_samples
        Draws of the latent of each cell.
    n_samples_overall
        Draws in all, each of a cell chosen at random with replacement: a sample of the cells as a
        population. Not together with `n_samples`.
    weights
        `"importance"` weights the draws of each cell by p(x, z) / q(z | x), which brings means
        closer to those of the true posterior; with `n_samples_overall`, each draw is one of 25
        candidates, chosen by weight. The memory for it does not grow with the cells, as that of
        :func:`get_importance_weights` does, which compares all draws with all cells.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_mean
        Whether draws of a cell are averaged; otherwise all are given.
    return_numpy
        Whether the result is an array instead of a DataFrame; None for a DataFrame wherever the
        result has two dimensions.
    silent
        Whether no progress is shown.
    out
        File to be made (`.h5ad` or `.zarr`) into which the result is written batch by batch, for
        results that do not fit into memory. It holds an AnnData with the result as `X`.

    Returns
    -------
    DataFrame [cells, genes] with their names, in the order asked for; with `return_mean=False` and
    several samples an array [samples, cells, genes]; with `n_samples_overall` a DataFrame
    [n_samples_overall, genes] in which a row has the name of the cell it was drawn from; with
    `out` the path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    UnknownKeyError
        If a gene or batch is not one of the model.
    InvalidOptionError
        If an argument has a value that it cannot take, or the file is there already.
    """
    check_samples(n_samples, n_samples_overall, return_mean, return_numpy, out)
    check_library_size(library_size)
    check_weights(weights, n_samples, n_samples_overall, return_mean)
    path = None if out is None else check_new_file(out)
    wanted = Wanted(
        codes=batch_codes(model.registration, transform_batch),
        genes=gene_positions(model.registration.genes, gene_list),
        library_size=library_size,
        n_samples=n_samples,
        n_decoded=model.registration.n_genes,
        importance=weights == "importance",
    )
    asked = pass_over(model, adata, indices, batch_size, silent=silent, counts=wanted.importance)
    if n_samples_overall is not None:
        chosen = torch.randint(len(asked.cells), (n_samples_overall,))
        asked = asked._replace(cells=asked.cells[chosen])
    genes = names_at(model.registration.genes, wanted.genes)
    whole: Any = model.adata if adata is None else adata
    cells = whole.obs_names[asked.cells.numpy()]
    if path is not None:
        with MatrixFile(path, cells, genes) as file, evaluating(model):
            for positions, batch in asked.batches():
                file.write(positions, mean_expression(model.module, batch, wanted).cpu().numpy())
        return path
    if n_samples > 1 and not return_mean:
        return all_draws(model, asked, wanted, len(genes))
    values = np.empty((len(cells), len(genes)), dtype=np.float32)
    kept = torch.from_numpy(values)
    with evaluating(model):
        for positions, batch in asked.batches():
            kept[positions] = mean_expression(model.module, batch, wanted).cpu()
    if return_numpy:
        return values
    import pandas as pd

    return pd.DataFrame(values, index=cells, columns=genes, copy=False)


def all_draws(model: HasDecoder, asked: Pass, wanted: Wanted, n_genes: int) -> np.ndarray:
    """Expression for every draw, [samples, cells, genes]."""
    shape = (wanted.n_samples, len(asked.cells), n_genes)
    kept = torch.empty(shape, dtype=torch.float32)
    with evaluating(model):
        for positions, batch in asked.batches():
            latent = draw_latent(model.module, batch, wanted.n_samples)
            for samples, values in decoded_parts(model.module, latent, batch, wanted):
                kept[samples, positions] = values.cpu()
    return kept.numpy()

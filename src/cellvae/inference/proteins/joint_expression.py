"""Normalized expression of genes, and denoised expression of proteins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import GenerativeModule
from cellvae.core.options import check_arguments
from cellvae.data.files.streaming_writer import MatrixWriter, check_new_file
from cellvae.inference.arguments import (
    INTEGERS,
    BatchChoice,
    batch_codes,
    feature_positions,
    gene_names,
    gene_positions,
)
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_values, names_of_cells, write_results
from cellvae.inference.expression.expression_arguments import check_library_size, check_samples
from cellvae.inference.expression.mean_expression import select_genes
from cellvae.inference.posterior_samples import SampleSums, iter_chunks, sample_latent
from cellvae.inference.proteins.protein_expression import ProteinOptions, protein_names
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


class JointRequest(NamedTuple):
    """What is computed for each batch of cells."""

    batch_codes: list[int | None]
    """Codes of the batches to decode for and to average over."""
    genes: Tensor | None
    """Positions of the requested genes; None for all."""
    library_size: float | Literal["latent"]
    n_samples: int
    n_decoded: int
    """Number of genes and proteins of the model."""
    proteins: ProteinOptions


@check_arguments(only=INTEGERS)
def get_joint_expression(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    n_samples_overall: int | None = None,
    transform_batch: BatchChoice = None,
    gene_list: Iterable[str] | None = None,
    protein_list: Iterable[str] | None = None,
    library_size: float | Literal["latent"] = 1,
    n_samples: int = 1,
    sample_protein_mixing: bool = False,
    scale_protein: bool = False,
    include_protein_background: bool = False,
    batch_size: int | None = None,
    return_mean: bool = True,
    return_numpy: bool | None = None,
    silent: bool = False,
    *,
    out: str | Path | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame] | tuple[np.ndarray, np.ndarray] | Path:
    """Normalized expression of genes, and expression of proteins without their background.

    Protein expression is the mean of the foreground counts times the probability of the foreground
    (Gayoso et al. 2021). Rates are those of the likelihood, with the capture efficiency of the
    panel; scvi-tools leaves the efficiency out. A protein that was not measured in a cell is
    imputed, best with `transform_batch`, the name of a batch in which it was.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Features are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    n_samples_overall
        Number of cells to draw with replacement from them, in place of all.
    transform_batch
        Name of the batch that cells are decoded as if they came from; several are averaged. None
        for the batch of each cell.
    gene_list, protein_list
        Genes and proteins to return, in the requested order; None for all.
    library_size
        Sum of the normalized expression of all genes; `"latent"` for the library size of each cell.
    n_samples
        Number of posterior samples for each cell.
    sample_protein_mixing
        Whether a protein is foreground or background is sampled, in place of its probability.
    scale_protein
        Whether the proteins of a cell are divided by their sum.
    include_protein_background
        Whether background counts are included.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    return_mean
        Whether the samples of a cell are averaged; otherwise all are returned.
    return_numpy
        Whether the results are arrays; None for DataFrames wherever they have two dimensions.
    silent
        Whether the progress bar is hidden.
    out
        AnnData file (`.h5ad` or `.zarr`) that the result is written to batch by batch: genes as
        `X`, proteins as `obsm["protein"]` with their names in `uns["protein_names"]`. None for a
        result in memory.

    Returns
    -------
    Genes and proteins: two DataFrames [cells, features] in the requested order, or arrays; with
    `return_mean=False` and several samples two arrays [samples, cells, features]; with `out` the
    path of the file.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features or categories of `adata` are not those of the model.
    UnknownKeyError
        If a gene, protein or batch is not one of the model.
    InvalidOptionError
        If an argument has an invalid value, or the file exists.
    OutputError
        If the file cannot be written.
    """
    check_samples(n_samples, n_samples_overall, return_mean, return_numpy, out)
    check_library_size(library_size)
    path = None if out is None else check_new_file(out)
    registration, names = model.registration, protein_names(model)
    genes = gene_positions(registration.genes, gene_list)
    request = JointRequest(
        batch_codes=batch_codes(registration, transform_batch),
        genes=genes,
        library_size=library_size,
        n_samples=n_samples,
        n_decoded=registration.n_genes + len(names),
        proteins=ProteinOptions(
            proteins=feature_positions(names, protein_list, "protein"),
            sample_mixing=sample_protein_mixing,
            scale=scale_protein,
            include_background=include_protein_background,
        ),
    )
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    if n_samples_overall is not None:
        drawn = torch.randint(len(cell_pass.cells), (n_samples_overall,))
        cell_pass = cell_pass._replace(cells=cell_pass.cells[drawn])
    columns = (gene_names(registration.genes, genes), gene_names(names, request.proteins.proteins))
    averaged = return_mean or n_samples == 1
    expression_of = partial(joint_expression_of, request=request, averaged=averaged)
    cells = names_of_cells(model, adata, cell_pass.cells)
    if path is not None:
        writer = MatrixWriter(path, cells, columns[0], {"protein": columns[1]})
        write_results(model, cell_pass, expression_of, writer)
        return path
    found = collect_values(model, cell_pass, expression_of, cells_dim=0 if averaged else 1)
    values = found["X"], found["protein"]
    if return_numpy or not averaged:
        return values
    import pandas as pd

    of_genes, of_proteins = (
        pd.DataFrame(part, index=cells, columns=names, copy=False)
        for part, names in zip(values, columns, strict=True)
    )
    return of_genes, of_proteins


def joint_expression_of(
    module: Any, batch: Any, *, request: JointRequest, averaged: bool
) -> dict[str, Tensor]:
    """Expression of genes (`X`) and of proteins in a batch of cells, of the mean or all samples."""
    latent = sample_latent(module, batch, request.n_samples)
    sums = [SampleSums(request.n_samples, averaged=averaged) for _ in range(2)]
    for part, *values in iter_joint(module, latent, batch, request):
        for of_output, value in zip(sums, values, strict=True):
            of_output.add(part, value)
    return {"X": sums[0].result(), "protein": sums[1].result()}


def iter_joint(
    module: GenerativeModule[Any], latent: Any, batch: Any, request: JointRequest
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Expression in chunks of samples, [samples, cells, features], averaged over batches."""
    for samples, few in iter_chunks(latent, request.n_decoded):
        totals: list[Tensor] = []
        for code in request.batch_codes:
            decoded: dict[str, Any] = module.decode(
                few, batch if code is None else module.replace_batch(batch, code)
            )
            latent_size = request.library_size == "latent"
            genes = decoded["rna"].get_normalized("mu" if latent_size else "scale")
            genes = select_genes(genes, request.genes)
            if request.library_size != "latent":
                genes = genes * request.library_size
            parts = [genes, request.proteins.expression(decoded["protein"])]
            totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
        genes, proteins = (total / len(request.batch_codes) for total in totals)
        yield samples, genes, proteins

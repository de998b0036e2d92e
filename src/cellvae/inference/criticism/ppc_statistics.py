"""Statistics of measured counts and of counts drawn from a model, from one pass over cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import GenerativeModule
from cellvae.core.options import check_arguments
from cellvae.data.setup.fields import make_count_column
from cellvae.data.setup.registration import Registration
from cellvae.data.storage.count_matrix import count_matrix
from cellvae.distributions.sparse_sampling import sample_sparse
from cellvae.errors import DataMismatchError, InvalidOptionError
from cellvae.evaluation.ppc_metrics import (
    GeneMoments,
    Ranks,
    variation_of_cells,
)
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.cell_pass import CellPass, inference_mode
from cellvae.inference.posterior_samples import (
    decode_samples,
    first_observed,
    sample_latent,
    slice_samples,
)
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from cellvae.data.storage.column import Column


RAW_COUNTS_FIELD = "Raw"
"""Name of the column of the measured counts."""


class PPCStatistics(NamedTuple):
    """Statistics of one model from one pass over the cells."""

    variation_of_genes: NDArray[np.float64]
    """Coefficient of variation of each gene, [genes]."""
    variation_of_cells: NDArray[np.float64]
    """Coefficient of variation of each cell, [cells]."""
    zero_fraction: NDArray[np.float64]
    """Fraction of the cells without counts of each gene, [genes]."""
    ranks: Ranks
    """Ranks of measured counts among draws."""


def check_models(models: Mapping[str, DecoderModel], n_samples: int, modality: str | None) -> None:
    """Check that models can be compared.

    Raises
    ------
    InvalidOptionError
        If there are no models or draws, a name is reserved, or a modality is given.
    DataMismatchError
        If the genes of the models differ.
    """
    if not models:
        raise InvalidOptionError("Expected at least one model in models_dict; got none.")
    if RAW_COUNTS_FIELD in models:
        raise InvalidOptionError(
            f"Expected names of models other than '{RAW_COUNTS_FIELD}' in models_dict."
        )
    check_at_least_one("n_samples", n_samples)
    if modality is not None:
        raise InvalidOptionError(
            "Expected modality=None, since genes are read as each model was set up; got "
            f"{modality!r}. Give adata=mdata[modality] to models of an AnnData."
        )
    genes = {name: model.registration.genes for name, model in models.items()}
    first = next(iter(genes))
    for name, own_genes in genes.items():
        if own_genes != genes[first]:
            raise DataMismatchError(
                f"Expected models of the same genes in the same order; those of '{name}' differ "
                f"from those of '{first}'. Check them separately."
            )


def raw_counts_column(
    adata: AnnData, layer: str | None, registration: Registration[Any]
) -> Column | None:
    """Counts of a layer, genes in the order of the model; None without a layer."""
    if layer is None:
        return None
    return make_count_column(count_matrix(adata, layer), registration.gene_order(adata))


def observed_counts(
    module: GenerativeModule[Any], batch: Any, cells: Tensor, raw: Column | None
) -> Tensor:
    """Measured counts of a batch, [cells, genes]: those of a layer, or of the model for None."""
    counts = first_observed(module, batch)
    return counts if raw is None else raw.take(cells).to(counts.device)


@check_arguments(only=INTEGERS)
def iter_predictive_draws(
    module: GenerativeModule[Any], batch: Any, n_samples: int
) -> Iterator[Tensor]:
    """Iterate over draws of the counts of a batch of cells, [cells, genes] each."""
    latent = sample_latent(module, batch, n_samples)
    for i in range(n_samples):
        one = slice_samples(latent, slice(i, i + 1))
        counts = decode_samples(module, one, batch)
        rates = counts.get_normalized("mu")
        sparse_counts = sample_sparse(counts)
        dense = torch.zeros(rates.numel(), dtype=rates.dtype, device=rates.device)
        dense[sparse_counts.indices] = sparse_counts.values.to(rates.dtype)
        yield dense.reshape(rates.shape[-2:])


def statistics_by_name(
    models: Mapping[str, DecoderModel],
    passes: Mapping[str, CellPass],
    raw: Column | None,
    n_samples: int,
) -> dict[str, PPCStatistics]:
    """Statistics of the measured counts (`"Raw"`), and of those drawn from each model, by name."""
    statistics: dict[str, PPCStatistics] = {}
    for name, model in models.items():
        measured, drawn = ppc_statistics(model, passes[name], raw, n_samples)
        statistics.setdefault(RAW_COUNTS_FIELD, measured)
        statistics[name] = drawn
    return statistics


def ppc_statistics(
    model: DecoderModel, cells: CellPass, raw: Column | None, n_samples: int
) -> tuple[PPCStatistics, PPCStatistics]:
    """Statistics of the measured counts, and of those drawn from a model."""
    n_cells, n_genes = len(cells.cells), model.registration.n_genes
    raw_genes, raw_cells = GeneMoments(n_genes), torch.empty(n_cells, dtype=torch.float64)
    genes = [GeneMoments(n_genes) for _ in range(n_samples)]
    cell_sums = torch.zeros(n_cells, 2, dtype=torch.float64)
    ranks = Ranks()
    with inference_mode(model):
        for positions, batch in cells.iter_batches():
            measured = observed_counts(model.module, batch, cells.cells[positions], raw)
            raw_genes.add(measured)
            raw_cells[positions] = variation_of_cells(measured).cpu()
            below = torch.zeros_like(measured, dtype=torch.int32)
            equal = torch.zeros_like(below)
            draws = iter_predictive_draws(model.module, batch, n_samples)
            for moments, counts in zip(genes, draws, strict=True):
                moments.add(counts)
                cell_sums[positions] += value_and_weight(variation_of_cells(counts)).cpu()
                below += counts < measured
                equal += counts == measured
            ranks.add(below, equal, n_samples)
    measured_statistics = PPCStatistics(
        raw_genes.variation(), raw_cells.numpy(), raw_genes.zero_fraction(), ranks
    )
    drawn = PPCStatistics(
        nanmean([moments.variation() for moments in genes]),
        (cell_sums[:, 0] / cell_sums[:, 1]).numpy(),
        np.mean([moments.zero_fraction() for moments in genes], axis=0),
        ranks,
    )
    return measured_statistics, drawn


def draw_counts(
    model: DecoderModel, cells: CellPass, raw: Column | None, n_samples: int
) -> tuple[csr_matrix, list[csr_matrix]]:
    """Measured counts and draws of them as sparse matrices, [cells, genes] each."""
    from scipy import sparse

    parts: list[list[csr_matrix]] = [[] for _ in range(1 + n_samples)]
    with inference_mode(model):
        for positions, batch in cells.iter_batches():
            measured = observed_counts(model.module, batch, cells.cells[positions], raw)
            draws = iter_predictive_draws(model.module, batch, n_samples)
            for part, counts in zip(parts, (measured, *draws), strict=True):
                part.append(sparse.csr_matrix(counts.cpu().numpy()))
    measured_counts, *drawn = (sparse.vstack(part, format="csr") for part in parts)
    return measured_counts, drawn


def value_and_weight(values: Tensor) -> Tensor:
    """Value and weight 1, or 0 and 0 for a value that is not finite, to sum for a mean, [n, 2]."""
    finite = values.isfinite()
    return torch.stack([torch.where(finite, values, 0), finite.to(values.dtype)], dim=-1)


def nanmean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over draws, ignoring NaN; NaN if all are."""
    total = value_and_weight(torch.from_numpy(np.stack(values))).sum(dim=0)
    return (total[:, 0] / total[:, 1]).numpy()

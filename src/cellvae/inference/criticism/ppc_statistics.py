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
from cellvae.distributions.sparse_sampling import sample_sparse
from cellvae.errors import DataMismatchError, InvalidOptionError
from cellvae.evaluation.ppc_metrics import (
    GeneMoments,
    Ranks,
    variation_of_cells,
)
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.cell_pass import CellPass, inference_mode
from cellvae.inference.criticism.checked_output import (
    CheckedOutput,
    features_of_output,
    find_output,
)
from cellvae.inference.posterior_samples import (
    decode_samples,
    sample_latent,
    slice_samples,
)
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


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


def check_models(
    models: Mapping[str, DecoderModel], n_samples: int, output: str | None, modality: str | None
) -> str:
    """Check that models can be compared, and find the name of the output that is checked.

    Raises
    ------
    InvalidOptionError
        If there are no models or draws, a name is reserved, or a model has no such output.
    DataMismatchError
        If the features of the models differ.
    """
    if not models:
        raise InvalidOptionError("Expected at least one model in models_dict; got none.")
    if RAW_COUNTS_FIELD in models:
        raise InvalidOptionError(
            f"Expected names of models other than '{RAW_COUNTS_FIELD}' in models_dict."
        )
    check_at_least_one("n_samples", n_samples)
    first = next(iter(models))
    found = find_output(models[first], output, modality)
    features = features_of_output(models[first], found)
    for name, model in models.items():
        if features_of_output(model, find_output(model, found, None)) != features:
            raise DataMismatchError(
                f"Expected models of the same genes in the same order; those of '{name}' differ "
                f"from those of '{first}'. Check them separately."
            )
    return found


@check_arguments(only=INTEGERS)
def iter_predictive_draws(
    module: GenerativeModule[Any], batch: Any, n_samples: int, output: str | None = None
) -> Iterator[Tensor]:
    """Iterate over draws of an output for a batch of cells, [cells, features] each.

    Without `output`, it is the first.
    """
    latent = sample_latent(module, batch, n_samples)
    for i in range(n_samples):
        one = slice_samples(latent, slice(i, i + 1))
        counts = decode_samples(module, one, batch, output=output)
        rates = counts.get_normalized("mu")
        sparse_counts = sample_sparse(counts)
        dense = torch.zeros(rates.numel(), dtype=rates.dtype, device=rates.device)
        dense[sparse_counts.indices] = sparse_counts.values.to(rates.dtype)
        yield dense.reshape(rates.shape[-2:])


def statistics_by_name(
    models: Mapping[str, DecoderModel],
    passes: Mapping[str, CellPass],
    output: CheckedOutput,
    n_samples: int,
) -> dict[str, PPCStatistics]:
    """Statistics of the measured counts (`"Raw"`), and of those drawn from each model, by name."""
    statistics: dict[str, PPCStatistics] = {}
    for name, model in models.items():
        measured, drawn = ppc_statistics(model, passes[name], output, n_samples)
        statistics.setdefault(RAW_COUNTS_FIELD, measured)
        statistics[name] = drawn
    return statistics


def ppc_statistics(
    model: DecoderModel, cells: CellPass, output: CheckedOutput, n_samples: int
) -> tuple[PPCStatistics, PPCStatistics]:
    """Statistics of the measured counts, and of those drawn from a model."""
    n_cells, n_features = len(cells.cells), len(features_of_output(model, output.name))
    raw_genes, raw_cells = GeneMoments(n_features), torch.empty(n_cells, dtype=torch.float64)
    genes = [GeneMoments(n_features) for _ in range(n_samples)]
    cell_sums = torch.zeros(n_cells, 2, dtype=torch.float64)
    ranks = Ranks()
    with inference_mode(model):
        for positions, batch in cells.iter_batches():
            measured, mask = output.observed_values(model.module, batch, cells.cells[positions])
            raw_genes.add(measured, mask)
            raw_cells[positions] = variation_of_cells(measured, mask).cpu()
            below = torch.zeros_like(measured, dtype=torch.int32)
            equal = torch.zeros_like(below)
            draws = iter_predictive_draws(model.module, batch, n_samples, output.name)
            for moments, counts in zip(genes, draws, strict=True):
                moments.add(counts, mask)
                cell_sums[positions] += value_and_weight(variation_of_cells(counts, mask)).cpu()
                below += counts < measured
                equal += counts == measured
            ranks.add(below, equal, n_samples, mask)
    # Without a count there is no variation; of genes that were not measured nothing is known.
    variation = raw_genes.variation()
    variation[(raw_genes.n_cells > 0).numpy() & np.isnan(variation)] = 0
    measured_statistics = PPCStatistics(
        variation, np.nan_to_num(raw_cells.numpy()), raw_genes.zero_fraction(), ranks
    )
    drawn = PPCStatistics(
        nanmean([moments.variation() for moments in genes]),
        (cell_sums[:, 0] / cell_sums[:, 1]).numpy(),
        np.mean([moments.zero_fraction() for moments in genes], axis=0),
        ranks,
    )
    return measured_statistics, drawn


def draw_counts(
    model: DecoderModel, cells: CellPass, output: CheckedOutput, n_samples: int
) -> tuple[csr_matrix, list[csr_matrix]]:
    """Measured counts and draws of them as sparse matrices, [cells, genes] each.

    Both are zero where nothing was measured.
    """
    from scipy import sparse

    parts: list[list[csr_matrix]] = [[] for _ in range(1 + n_samples)]
    with inference_mode(model):
        for positions, batch in cells.iter_batches():
            measured, mask = output.observed_values(model.module, batch, cells.cells[positions])
            draws = iter_predictive_draws(model.module, batch, n_samples, output.name)
            for part, counts in zip(parts, (measured, *draws), strict=True):
                values = counts if mask is None else torch.where(mask, counts, 0.0)
                part.append(sparse.csr_matrix(values.cpu().numpy()))
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

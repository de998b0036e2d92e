"""Expression of a batch of cells, averaged over posterior samples and batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from torch import Tensor

from cellvae.contracts import GenerativeModule, Latent
from cellvae.distributions.protocol import CountDistribution
from cellvae.inference.likelihood.importance_sampling import resample_latent, weighted_samples
from cellvae.inference.posterior_samples import decode_samples, iter_chunks, sample_latent


class ExpressionRequest(NamedTuple):
    """What is computed for each batch of cells."""

    batch_codes: list[int | None]
    """Codes of the batches to decode for and to average over."""
    genes: Tensor | None
    """Positions of the requested genes; None for all."""
    library_size: float | Literal["latent"]
    n_samples: int
    n_decoded: int
    """Number of genes of the model, all of which are decoded for every sample."""
    importance: bool = False


def mean_expression(
    module: GenerativeModule[Any], batch: Any, request: ExpressionRequest
) -> Tensor:
    """Expression of a batch of cells, averaged over posterior samples, [cells, genes]."""
    weights = None
    if not request.importance:
        latent = sample_latent(module, batch, request.n_samples)
    elif request.n_samples > 1:
        encoded = module.encode(batch)
        latent, log_weights = weighted_samples(module, batch, encoded, request.n_samples)
        weights = log_weights.softmax(dim=0).to(latent.sample.dtype)
    else:
        latent = resample_latent(module, batch, module.encode(batch))
    total: Tensor | None = None
    for samples, values in iter_decoded(module, latent, batch, request):
        if weights is not None:
            values *= weights[samples].unsqueeze(-1)
        part = values.sum(dim=0)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total if weights is not None else total.div_(len(latent.sample))


def iter_decoded(
    module: GenerativeModule[Any], latent: Latent, batch: Any, request: ExpressionRequest
) -> Iterator[tuple[slice, Tensor]]:
    """Expression in chunks of samples, [samples, cells, genes], averaged over batches."""
    for samples, few in iter_chunks(latent, request.n_decoded):
        total: Tensor | None = None
        for code in request.batch_codes:
            values = select_expression(decode_samples(module, few, batch, code), request)
            total = values if total is None else total.add_(values)
        assert total is not None
        yield samples, total.div_(len(request.batch_codes))


def select_expression(counts: CountDistribution, request: ExpressionRequest) -> Tensor:
    """Expression of the requested genes at the requested library size, from decoded counts."""
    if request.library_size == "latent":
        return select_genes(counts.get_normalized("mu"), request.genes)
    return select_genes(counts.get_normalized("scale"), request.genes) * request.library_size


def select_genes(values: Tensor, genes: Tensor | None) -> Tensor:
    """Values of the genes at some positions; of all genes for None."""
    return values if genes is None else values[..., genes.to(values.device)]

"""Expression of a batch of cells, averaged over draws and batches as they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from torch import Tensor

from cellvae.contracts import Latent, Module
from cellvae.distributions.protocol import CountDistribution
from cellvae.inference.likelihood.importance_sampling import resample_latent, weighted_samples
from cellvae.inference.posterior_samples import decode_samples, iter_chunks, sample_latent


class ExpressionRequest(NamedTuple):
    """What is asked of each batch of cells."""

    batch_codes: list[int | None]
    """Batches to decode for, averaged."""
    genes: Tensor | None
    """Positions of the genes, None for all."""
    library_size: float | Literal["latent"]
    n_samples: int
    n_decoded: int
    """Genes of the model, which are decoded for every draw."""
    importance: bool = False


def mean_expression(module: Module[Any], batch: Any, wanted: ExpressionRequest) -> Tensor:
    """Expression of a batch of cells, averaged over draws, [cells, genes]."""
    weights = None
    if not wanted.importance:
        latent = sample_latent(module, batch, wanted.n_samples)
    elif wanted.n_samples > 1:
        encoded = module.encode(batch)
        latent, logs = weighted_samples(module, batch, encoded, wanted.n_samples)
        weights = logs.softmax(dim=0).to(latent.sample.dtype)
    else:
        latent = resample_latent(module, batch, module.encode(batch))
    total: Tensor | None = None
    for samples, values in iter_decoded(module, latent, batch, wanted):
        if weights is not None:
            values *= weights[samples].unsqueeze(-1)
        part = values.sum(dim=0)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total if weights is not None else total.div_(len(latent.sample))


def iter_decoded(
    module: Module[Any], latent: Latent, batch: Any, wanted: ExpressionRequest
) -> Iterator[tuple[slice, Tensor]]:
    """Expression for a few draws at a time, [samples, cells, genes], averaged over batches."""
    for samples, few in iter_chunks(latent, wanted.n_decoded):
        total: Tensor | None = None
        for code in wanted.batch_codes:
            values = select_expression(decode_samples(module, few, batch, code), wanted)
            total = values if total is None else total.add_(values)
        assert total is not None
        yield samples, total.div_(len(wanted.batch_codes))


def select_expression(counts: CountDistribution, wanted: ExpressionRequest) -> Tensor:
    """Expression in a decoded distribution, of the genes asked for and scaled."""
    if wanted.library_size == "latent":
        return select_genes(counts.get_normalized("mu"), wanted.genes)
    return select_genes(counts.get_normalized("scale"), wanted.genes) * wanted.library_size


def select_genes(values: Tensor, genes: Tensor | None) -> Tensor:
    """Values of these genes, in this order."""
    return values if genes is None else values[..., genes.to(values.device)]

"""Expression of a batch of cells, averaged over draws and batches as they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from torch import Tensor

from cellvae.contracts import Latent, Module
from cellvae.distributions.normalized import CountDistribution
from cellvae.inference.draws import decode, draw_latent, in_parts
from cellvae.inference.joint import chosen_draws, weighted_draws


class Wanted(NamedTuple):
    """What is asked of each batch of cells."""

    codes: list[int | None]
    """Batches to decode for, averaged."""
    genes: Tensor | None
    """Positions of the genes, None for all."""
    library_size: float | Literal["latent"]
    n_samples: int
    n_decoded: int
    """Genes of the model, which are decoded for every draw."""
    importance: bool = False


def mean_expression(module: Module[Any], batch: Any, wanted: Wanted) -> Tensor:
    """Expression of a batch of cells, averaged over draws, [cells, genes]."""
    weights = None
    if not wanted.importance:
        latent = draw_latent(module, batch, wanted.n_samples)
    elif wanted.n_samples > 1:
        encoded = module.encode(batch)
        latent, logs = weighted_draws(module, batch, encoded, wanted.n_samples)
        weights = logs.softmax(dim=0).to(latent.sample.dtype)
    else:
        latent = chosen_draws(module, batch, module.encode(batch))
    total: Tensor | None = None
    for samples, values in decoded_parts(module, latent, batch, wanted):
        if weights is not None:
            values *= weights[samples].unsqueeze(-1)
        part = values.sum(dim=0)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total if weights is not None else total.div_(len(latent.sample))


def decoded_parts(
    module: Module[Any], latent: Latent, batch: Any, wanted: Wanted
) -> Iterator[tuple[slice, Tensor]]:
    """Expression for a few draws at a time, [samples, cells, genes], averaged over batches."""
    for samples, few in in_parts(latent, wanted.n_decoded):
        total: Tensor | None = None
        for code in wanted.codes:
            values = expression_of(decode(module, few, batch, code), wanted)
            total = values if total is None else total.add_(values)
        assert total is not None
        yield samples, total.div_(len(wanted.codes))


def expression_of(counts: CountDistribution, wanted: Wanted) -> Tensor:
    """Expression in a decoded distribution, of the genes asked for and scaled."""
    if wanted.library_size == "latent":
        return chosen(counts.get_normalized("mu"), wanted.genes)
    return chosen(counts.get_normalized("scale"), wanted.genes) * wanted.library_size


def chosen(values: Tensor, genes: Tensor | None) -> Tensor:
    """Values of these genes, in this order."""
    return values if genes is None else values[..., genes.to(values.device)]

"""What a differential test compares: decoded values of each feature, and measured counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from cellvae.inference.protocols import DecoderModel


class Measured(NamedTuple):
    """Measured counts of a batch of cells."""

    counts: Float[Tensor, "cells features"]
    library_size: Float[Tensor, "cells 1"]
    """Counts of each cell, by which normalized counts are divided."""
    mask: Bool[Tensor, "#cells features"] | None = None
    """Which counts were measured; None for all."""


class Quantity(NamedTuple):
    """Values that are compared between populations, of which a model has one for each feature."""

    n_features: int
    decode: Callable[[Any, Any], Float[Tensor, "samples features"]]
    """Decoded values for samples of the latent and a batch of cells."""
    expected_counts: Callable[[Any, Any], Float[Tensor, "samples features"]]
    """Expected counts under the model, for the same arguments."""
    measure_counts: Callable[[Any], Measured]
    """Measured counts of a batch of cells."""


def first_output(model: DecoderModel) -> Quantity:
    """Normalized values of the first output of a model, without its other parameters."""
    module = model.module
    quantity = output_quantity(model, module.outputs[0], model.registration.n_genes)
    return quantity._replace(decode=module.decode_scale)


def output_quantity(model: DecoderModel, output: str, n_features: int) -> Quantity:
    """Normalized values of one of several outputs of a model, which not all cells may have.

    Parameters
    ----------
    model
        Trained model.
    output
        Name of the output.
    n_features
        Number of its features.
    """
    module = model.module

    def decode(latent: Any, batch: Any) -> Tensor:
        counts: Any = module.decode_output(latent, batch, output)
        values: Tensor = counts.get_normalized("scale")
        return values

    def expected_counts(latent: Any, batch: Any) -> Tensor:
        counts: Any = module.decode_output(latent, batch, output)
        mean: Tensor = counts.mean
        return mean

    def measure_counts(batch: Any) -> Measured:
        counts = module.observed_values(batch)[output]
        mask = module.measurement_masks(batch).get(output)
        return Measured(
            counts,
            counts.sum(dim=-1, keepdim=True),
            None if mask is None else mask.expand(counts.shape),
        )

    return Quantity(n_features, decode, expected_counts, measure_counts)

"""Genes of a model that a user names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from cellvae.errors import (
    InvalidOptionError,
    UnknownKeyError,
    count_noun,
    did_you_mean,
    quote_names,
)


def gene_positions(genes: tuple[str, ...], gene_list: Iterable[str] | None) -> Tensor | None:
    """Positions of genes among those of a model, in the order asked; None for all in its order.

    Parameters
    ----------
    genes
        Names of the genes of the model.
    gene_list
        Names asked for; a name alone is one gene, and names may repeat.

    Raises
    ------
    UnknownKeyError
        If a name is not that of a gene of the model.
    InvalidOptionError
        If the list is empty.
    """
    if gene_list is None:
        return None
    asked = [gene_list] if isinstance(gene_list, str) else [*gene_list]
    if not asked:
        raise InvalidOptionError("Expected at least one gene in gene_list; got none.")
    places = {name: place for place, name in enumerate(genes)}
    unknown = [name for name in asked if name not in places]
    if unknown:
        raise UnknownKeyError(
            f"Expected names of genes that the model knows; "
            f"got {count_noun(len(unknown), 'other')}: {quote_names(unknown)}."
            f"{did_you_mean(str(unknown[0]), genes)}"
        )
    return torch.from_numpy(np.array([places[name] for name in asked], dtype=np.int64))


def gene_names(genes: tuple[str, ...], positions: Tensor | None) -> list[str]:
    """Names of the genes at these positions."""
    return [*genes] if positions is None else [genes[place] for place in positions.tolist()]

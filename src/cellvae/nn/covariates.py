"""Categories of cells as columns that a layer can read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def one_hot(
    codes: Int[Tensor, "*cells 1"], n_categories: int
) -> Float[Tensor, "*cells categories"]:
    """Indicator columns of one category per cell."""
    return functional.one_hot(codes.squeeze(-1), n_categories).float()


def indicator_columns(
    codes: Sequence[Int[Tensor, "cells 1"]], sizes: Sequence[int]
) -> Float[Tensor, "cells columns"] | None:
    """Indicator columns of several categories side by side; one with a single value adds none."""
    columns = [one_hot(c, n) for c, n in zip(codes, sizes, strict=True) if n > 1]
    return torch.cat(columns, dim=-1) if columns else None


def concat_covariates(features: Tensor, columns: Tensor | None) -> Tensor:
    """Features with further columns of the same cells, repeated for each sample."""
    if columns is None:
        return features
    columns = columns.expand(*features.shape[:-1], columns.shape[-1])
    return torch.cat([features, columns], dim=-1)

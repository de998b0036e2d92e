"""One-hot encoding of categorical covariates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def one_hot(
    codes: Int[Tensor, "*cells 1"], n_categories: int
) -> Float[Tensor, "*cells categories"]:
    """One-hot encoding of one covariate, in float32."""
    zeros = torch.zeros(*codes.shape[:-1], n_categories, device=codes.device)
    return zeros.scatter_(-1, codes, 1.0)


def one_hot_covariates(
    codes: Sequence[Int[Tensor, "cells 1"]], n_categories: Sequence[int]
) -> Float[Tensor, "cells columns"] | None:
    """One-hot encodings of several covariates, concatenated; None if there is no column.

    A covariate with a single category adds no column.
    """
    columns = [one_hot(c, n) for c, n in zip(codes, n_categories, strict=True) if n > 1]
    if len(columns) < 2:
        return columns[0] if columns else None
    return torch.cat(columns, dim=-1)


def concat_covariates(features: Tensor, columns: Tensor | None) -> Tensor:
    """Concatenate features and covariate columns of the same cells, repeated for each sample."""
    if columns is None:
        return features
    columns = columns.expand(*features.shape[:-1], columns.shape[-1])
    return torch.cat([features, columns], dim=-1)

"""Architectural surgery (scArches): weights of a network with additional categories."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellvae.core.frozen_weights import WeightSlice
from cellvae.nn.fc_layers import FCLayers


def grow_categories(
    network: nn.Module, reference: nn.Module
) -> tuple[dict[str, Tensor], dict[str, WeightSlice]]:
    """Weights of a network whose covariates have additional categories, from those of a reference.

    The weights of a new category are the mean of those of the reference categories, so that its
    cells are treated as those of an average category; the output for cells of the reference
    categories does not change. If a covariate had a single category, and thus no column, the
    weights of the old and the new categories are zero.

    Parameters
    ----------
    network
        Network with the additional categories, which come last; its weights are not read.
    reference
        Network of the same architecture without them.

    Returns
    -------
    tuple
        All weights by name; and for those that are larger than in the reference, the part that
        comes from it.
    """
    weights = {name: tensor.detach().clone() for name, tensor in reference.state_dict().items()}
    grown: dict[str, WeightSlice] = {}
    for path, layers in network.named_modules():
        if not isinstance(layers, FCLayers):
            continue
        reference_layers = reference.get_submodule(path)
        assert isinstance(reference_layers, FCLayers)
        for i, layer in enumerate(layers.fc_layers):
            name = f"{path}.fc_layers.Layer {i}.0.weight"
            if weights[name].shape != layer.get_parameter("0.weight").shape:
                weights[name], grown[name] = insert_category_columns(
                    weights[name], reference_layers.n_cat_list, layers.n_cat_list
                )
    for name, tensor in network.state_dict().items():
        for dim, size in enumerate(tensor.shape):
            old = weights[name]
            n_old = old.shape[dim]
            if n_old < size:
                new = old.mean(dim, keepdim=True)
                shape = [*old.shape[:dim], size - n_old, *old.shape[dim + 1 :]]
                weights[name] = torch.cat([old, new.expand(shape)], dim=dim)
                grown[name] = WeightSlice(dim, ((0, n_old),))
    return weights, grown


def insert_category_columns(
    weight: Tensor, n_old: Sequence[int], n_new: Sequence[int]
) -> tuple[Tensor, WeightSlice]:
    """Weight of a layer with columns for additional categories, [out, in], and its old part.

    Parameters
    ----------
    weight
        Weight with a column for each feature, then one for each category of every covariate with at
        least two.
    n_old, n_new
        Number of categories of each covariate, before and after.
    """
    start = weight.shape[1] - sum(n for n in n_old if n > 1)
    columns, ranges, end = [weight[:, :start]], [(0, start)], start
    for n_before, n_after in zip(n_old, n_new, strict=True):
        if n_after < 2:
            continue
        if n_before > 1:
            old = weight[:, start : start + n_before]
            start += n_before
        else:
            old = weight.new_zeros(len(weight), 1)
        columns += [old, old.mean(1, keepdim=True).expand(-1, n_after - n_before)]
        ranges.append((end, end + n_before))
        end += n_after
    return torch.cat(columns, dim=1), WeightSlice(1, tuple(ranges))

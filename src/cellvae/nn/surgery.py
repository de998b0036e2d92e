"""A network that reads more categories than another, with the weights of that one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellvae.core.frozen_weights import WeightSlice
from cellvae.nn.fc_layers import FCLayers


def grow_categories(
    network: nn.Module, reference: nn.Module
) -> tuple[dict[str, Tensor], dict[str, WeightSlice]]:
    """Weights for a network with further categories at the end of each of its covariates.

    A further category begins as the mean of the known ones, so that the network answers for its
    cells as for those of an average known category, and for cells of known ones as before. Where
    there was one category, and so no column for it, both begin without any effect.

    Parameters
    ----------
    network
        Network with the further categories; its weights are not read.
    reference
        Network of the same kind without them.

    Returns
    -------
    All weights; and for those that have grown, which part is that of the reference.
    """
    weights = {name: tensor.detach().clone() for name, tensor in reference.state_dict().items()}
    grown: dict[str, WeightSlice] = {}
    for path, layers in network.named_modules():
        if not isinstance(layers, FCLayers):
            continue
        before = reference.get_submodule(path)
        assert isinstance(before, FCLayers)
        for i, layer in enumerate(layers.fc_layers):
            name = f"{path}.fc_layers.Layer {i}.0.weight"
            if weights[name].shape != layer.get_parameter("0.weight").shape:
                weights[name], grown[name] = insert_category_columns(
                    weights[name], before.n_cat_list, layers.n_cat_list
                )
    for name, tensor in network.state_dict().items():
        for dim, size in enumerate(tensor.shape):
            known = weights[name]
            n_known = known.shape[dim]
            if n_known < size:
                further = known.mean(dim, keepdim=True)
                shape = [*known.shape[:dim], size - n_known, *known.shape[dim + 1 :]]
                weights[name] = torch.cat([known, further.expand(shape)], dim=dim)
                grown[name] = WeightSlice(dim, ((0, n_known),))
    return weights, grown


def insert_category_columns(
    weight: Tensor, known: Sequence[int], wanted: Sequence[int]
) -> tuple[Tensor, WeightSlice]:
    """Weight of a layer with columns for further categories, [outputs, inputs].

    Parameters
    ----------
    weight
        Weight with a column for each feature, then for each category of covariates of several.
    known, wanted
        Number of categories of each covariate, before and after.
    """
    place = weight.shape[1] - sum(n for n in known if n > 1)
    columns, ranges, end = [weight[:, :place]], [(0, place)], place
    for n_known, n_wanted in zip(known, wanted, strict=True):
        if n_wanted < 2:
            continue
        if n_known > 1:
            own = weight[:, place : place + n_known]
            place += n_known
        else:
            own = weight.new_zeros(len(weight), 1)
        columns += [own, own.mean(1, keepdim=True).expand(-1, n_wanted - n_known)]
        ranges.append((end, end + n_known))
        end += n_wanted
    return torch.cat(columns, dim=1), WeightSlice(1, tuple(ranges))

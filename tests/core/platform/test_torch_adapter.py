"""Private names of torch do what the package needs of them, in this version of torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cellvae.core.platform.torch_adapter import (
    NORM_AND_DROPOUT,
    copy_all_,
    has_hooks,
    lerp_all_,
    norms,
)


def test_norms_are_those_of_each_tensor_and_show_what_is_not_finite() -> None:
    tensors = [torch.tensor([3.0, 4.0]), torch.tensor([[1.0]]), torch.tensor([torch.nan, 1.0])]
    found = norms(tensors)
    assert found[:2].tolist() == [5.0, 1.0] and found[2].isnan()


def test_all_tensors_are_changed_in_place() -> None:
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([[10.0]])
    lerp_all_([first, second], [torch.tensor([3.0, 2.0]), torch.tensor([[0.0]])], 0.5)
    assert first.tolist() == [2.0, 2.0] and second.item() == 5.0
    copy_all_([first], [torch.tensor([7.0, 8.0])])
    assert first.tolist() == [7.0, 8.0]


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
     "register_full_backward_pre_hook"],
)  # fmt: skip
def test_every_kind_of_hook_is_found_until_it_is_removed(register: str) -> None:
    layer = nn.Linear(2, 3)
    assert not has_hooks(layer)
    handle = getattr(layer, register)(lambda *_: None)
    assert has_hooks(layer)
    handle.remove()
    assert not has_hooks(layer)


def test_normalisation_and_dropout_of_all_dimensions_have_these_bases() -> None:
    layers = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.Dropout(), nn.Dropout1d(), nn.AlphaDropout()]
    assert all(isinstance(layer, NORM_AND_DROPOUT) for layer in layers)
    assert not isinstance(nn.Linear(2, 2), NORM_AND_DROPOUT)

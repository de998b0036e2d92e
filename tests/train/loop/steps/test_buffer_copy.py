"""Buffers of a network, saved before a step and brought back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cellvae.train.loop.steps.buffer_copy import BufferCopy


def buffers() -> list[Tensor]:
    """Buffers of two dtypes, of any shape and layout."""
    torch.manual_seed(0)
    transposed = torch.randn(2, 3).t()
    return [
        torch.randn(4),
        torch.tensor(3),
        transposed,
        torch.zeros(0),
        torch.arange(5),
        torch.ones(()),
    ]


@pytest.mark.parametrize("bad", [None, True, False])
def test_what_a_step_changed_comes_back_if_it_was_bad(bad: bool | None) -> None:
    held = buffers()
    copy = BufferCopy(held)
    for each in held:
        each.add_(1)
    copy.save()
    before = [each.clone() for each in held]
    for each in held:
        each.mul_(2) if each.dtype == torch.int64 else each.fill_(float("nan"))
    after = [each.clone() for each in held]

    copy.restore(None if bad is None else torch.tensor(bad))

    expected = after if bad is False else before
    for found, value in zip(held, expected, strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=0, equal_nan=True)
    assert [saved.dtype for saved in copy.saved] == [torch.float32, torch.int64]


def test_a_network_without_buffers_has_nothing_to_save() -> None:
    copy = BufferCopy([])
    copy.save()
    copy.restore(torch.tensor(True))
    assert copy.saved == []

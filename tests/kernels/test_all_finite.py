"""Search for NaN and infinity by the kernel, and by torch."""

from __future__ import annotations

import math

import pytest
import torch

from cellvae.kernels import all_finite
from cellvae.kernels.all_finite import MIN_SIZE, scan_tensors, tensor_table
from cellvae.settings import settings

WRONG = (math.nan, -math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("position", [0, 1, 65_535, 65_536, 70_001, -2, -1])
def test_one_element_among_many_is_found(position: int, wrong: float) -> None:
    tensors = [torch.zeros(3), torch.full((7, 10_003), -3.4e38), torch.tensor(1e-45)]
    assert scan_tensors(tensor_table(tensors))
    tensors[1].view(-1)[position] = wrong
    assert not scan_tensors(tensor_table(tensors))


@pytest.mark.parametrize("which", range(4))
def test_every_tensor_is_checked(which: int) -> None:
    tensors = [torch.ones(n) for n in (1, 65_536, 65_537, 2)]
    tensors[which][-1] = math.inf
    assert not scan_tensors(tensor_table(tensors))
    tensors[which][-1] = 0.0
    assert scan_tensors(tensor_table(tensors))


def test_nothing_is_finite() -> None:
    assert scan_tensors(tensor_table([torch.zeros(0), torch.zeros(0, 3)]))


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("size", [8, MIN_SIZE])
@pytest.mark.parametrize("layout", ["plain", "transposed", "strided", "double"])
def test_tensors_of_all_layouts_are_checked(
    layout: str, size: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.values, "kernels", kernels)
    whole = torch.ones(4, size, dtype=torch.float64 if layout == "double" else torch.float32)
    tensor = {"transposed": whole.t(), "strided": whole[:, ::2]}.get(layout, whole)
    assert (tensor_table([tensor]) is not None) == (layout in ("plain", "transposed"))
    assert all_finite([tensor])
    whole[-1, 2] = math.nan
    assert not all_finite([tensor])

"""Means of weights, compared with the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellvae.errors import InvalidOptionError
from cellvae.train.loop.weight_averaging import copy_weights_, interpolate_with, lerp_


def state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(3, 4, generator=generator),
        "half": torch.randn(5, generator=generator).half(),
        "count": torch.tensor(seed),
    }


def test_an_average_moves_by_a_fraction_in_place() -> None:
    average, values = [torch.tensor([0.0, 8.0])], [torch.tensor([4.0, 0.0])]
    held = average[0]
    lerp_(average, values, 0.25)
    assert held.tolist() == [1.0, 6.0]
    assert values[0].tolist() == [4.0, 0.0]
    copy_weights_(average, values)
    assert held.tolist() == [4.0, 0.0]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_networks_are_mixed_on_a_straight_line(alpha: float) -> None:
    first, second = state(1), state(2)
    kept = {name: value.clone() for name, value in first.items()}
    mixed = interpolate_with(first, second, alpha)
    expected = (1 - alpha) * first["weight"].double() + alpha * second["weight"].double()
    assert torch.allclose(mixed["weight"].double(), expected, atol=1e-6)
    assert mixed["half"].dtype == torch.float16
    assert int(mixed["count"]) == (2 if alpha > 0.5 else 1)
    if alpha in (0.0, 1.0):
        end = second if alpha else first
        assert all(torch.equal(mixed[name], end[name]) for name in end)
    mixed["weight"].zero_()
    mixed["count"].zero_()
    assert all(torch.equal(first[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("others", "alpha", "match"),
    [
        (state(2), 1.5, "from 0 to 1; got 1.5"),
        ({"weight": state(2)["weight"]}, 0.5, "'count', 'half'"),
        ({**state(2), "weight": torch.zeros(3, 5)}, 0.5, r"\(3, 4\) and \(3, 5\)"),
    ],
)
def test_other_networks_are_refused(others: dict[str, Any], alpha: float, match: str) -> None:
    with pytest.raises(InvalidOptionError, match=match):
        interpolate_with(state(1), others, alpha)

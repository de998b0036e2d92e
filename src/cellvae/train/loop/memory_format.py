"""Layout in memory of weights and of what optimizers remember of them."""

from __future__ import annotations

import torch


def align_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer remembers of its weights the layout that these have in memory.

    Fused optimizers go through both in the order of the memory.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (
                isinstance(value, torch.Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

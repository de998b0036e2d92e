"""The recorder replays operations alone, and refuses what a CUDA graph cannot capture."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from recorder import CaptureError, record_operations
from torch import Tensor, nn
from torch.nn import functional

ONE = torch.ones(3)
LAYER = nn.Linear(3, 2)


def step_with(state: dict[str, Tensor]) -> Callable[[], None]:
    """Step that adds noise in place, through views and in new memory."""

    def step() -> None:
        noise = torch.randn_like(state["x"])
        state["x"].add_(noise)
        doubled = state["x"].view(3, 2) * 2
        state["y"][1:].copy_(doubled.t().reshape(-1)[1:])
        state["n"] += 1

    return step


def test_a_replay_runs_the_operations_alone_with_new_random_numbers() -> None:
    def make() -> dict[str, Tensor]:
        return {"x": torch.zeros(6), "y": torch.zeros(6), "n": torch.zeros(())}

    plain, other = make(), make()
    torch.manual_seed(0)
    for _ in range(3):
        step_with(plain)()
    step, n_calls = step_with(other), 0

    def counted() -> None:
        nonlocal n_calls
        n_calls += 1
        step()

    torch.manual_seed(0)
    before = torch.get_rng_state()
    recording = record_operations(counted)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(not tensor.any() for tensor in other.values())
    for _ in range(3):
        recording.replay()
    assert n_calls == 1
    assert all(torch.equal(plain[k], other[k]) for k in plain)
    # randn_like, add_, mul, clone, copy_ and add_; views are not operations.
    assert len(recording.kernels) == 6


def test_numbers_of_python_are_fixed_and_memory_of_the_step_is_its_own() -> None:
    total, kept, factor = torch.zeros(()), [], 2.0

    def step() -> None:
        kept.append(torch.ones((), device="cpu") * factor)
        total.add_(kept[-1])

    recording = record_operations(step)
    # What a step leaves behind has no value before the first replay.
    assert kept[0].isnan()
    factor = 3.0
    recording.replay()
    assert float(total) == float(kept[0]) == 2.0


def test_a_step_with_backward_pass_and_optimizer_is_replayed() -> None:
    def train(*, recorded: bool) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 1))
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1, fused=True)
        cells = torch.zeros(7, dtype=torch.int64)
        data, replay = torch.randn(50, 4), None

        def step() -> None:
            optimizer.zero_grad()
            net(data.index_select(0, cells)).square().mean().backward()
            optimizer.step()

        for i in range(20):
            cells.copy_(torch.randperm(50)[:7])
            if i >= 3 and recorded:
                replay = replay or record_operations(step).replay
                replay()
            else:
                step()
        return tuple(t.clone() for t in net.state_dict().values())

    pairs = zip(train(recorded=False), train(recorded=True), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def adam_with_host_counter() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))], foreach=False, fused=False)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2, device="cpu")
    optimizer.step()


FORBIDDEN: dict[str, tuple[Callable[[], object], str]] = {
    "item": (lambda: ONE.sum().item(), "reads a tensor by item"),
    "bool": (lambda: bool(ONE.any()), "reads a tensor by __bool__"),
    "float": (lambda: float(ONE.sum()), "reads a tensor by __float__"),
    "tolist": (lambda: ONE.tolist(), "reads a tensor by tolist"),
    "numpy": (lambda: ONE.numpy(), "reads a tensor by numpy"),
    "array": (lambda: np.asarray(ONE), "reads a tensor by __array__"),
    "equal": (lambda: torch.equal(ONE, ONE), r"aten.equal.default: the host reads its result"),
    "nonzero": (lambda: ONE.nonzero(), r"aten.nonzero.default: the shape of its result"),
    "where": (lambda: torch.where(ONE > 0), r"aten.nonzero.+: the shape of its result"),
    "unique": (lambda: ONE.unique(), r"aten._unique2.+: the shape of its result"),
    "masked_select": (lambda: ONE.masked_select(ONE > 0), r"aten.masked_select.+: the shape"),
    "mask": (lambda: ONE[ONE > 0], r"aten.index.+: a mask is used as an index"),
    "repeats": (lambda: ONE.repeat_interleave(ONE.long()), r"the shape of its result|reads"),
    "tensor": (lambda: ONE + torch.tensor(2.0), "tensor makes a tensor on the CPU"),
    "zeros": (lambda: torch.zeros(3), "zeros makes a tensor on the CPU"),
    "list": (lambda: ONE[[0, 1]], r"aten.lift_fresh.+: a value of the host becomes a tensor"),
    "other device": (lambda: ONE.to("meta"), "it copies between devices"),
    "cpu": (lambda: ONE.cpu(), "reads a tensor by cpu"),
    "resize": (lambda: ONE.clone().resize_(2), r"aten.resize_.+: it changes where a tensor is"),
    "generator": (
        lambda: ONE.clone().normal_(generator=torch.Generator()),
        "a generator that the graph does not know",
    ),
    "seed": (lambda: torch.manual_seed(5), "or seeds a generator"),
    "random": (lambda: random.random(), "random numbers of the host"),
    "numpy.random": (lambda: np.random.rand(), "random numbers of the host"),
    "one_hot": (lambda: functional.one_hot(ONE.long()), "one_hot without num_classes reads"),
    "optimizer": (adam_with_host_counter, r"aten._local_scalar_dense|item|CPU"),
    "kernel": (ONE.data_ptr, "reads a tensor by data_ptr"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_capture_forbids_is_refused_with_its_line(name: str) -> None:
    step, message = FORBIDDEN[name]
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        with pytest.raises(CaptureError, match=message) as raised:
            record_operations(step)  # type: ignore[arg-type]
    finally:
        torch.set_rng_state(state[0])
        random.setstate(state[1])
        np.random.set_state(state[2])
    assert "test_recorder.py" in str(raised.value) or "random" in name or name == "seed"


def test_a_shape_that_changes_between_replays_is_refused() -> None:
    width, source = torch.ones(2), torch.ones(3)

    def step() -> None:
        source.mul(2)
        LAYER.weight.detach().add(1)
        width.add(1)

    recording = record_operations(step)
    recording.operations[0].args = (torch.ones(4), *recording.operations[0].args[1:])
    with pytest.raises(CaptureError, match=r"has a result of \(4,\) in a replay, not \(3,\)"):
        recording.replay()

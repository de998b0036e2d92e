"""Steps of Adam by one kernel, against the equations in double precision and against torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cellvae.kernels import AdamTable, AdamWeights, adam_step, has_adam_kernel
from cellvae.kernels.compiled.adam_step_numba import WEIGHTS_PER_CHUNK
from cellvae.settings import settings
from cellvae.train.loop import optimizers
from cellvae.train.loop.optimizers import MIN_KERNEL_SIZE, Adam, AdamW, make_table

# A matrix of several chunks, one of a part of a chunk, and vectors shorter than a vector register.
SHAPES = ((3, WEIGHTS_PER_CHUNK), (7, 11), (5,), (1,), ())
KWARGS: dict[str, Any] = {"lr": 0.02, "eps": 0.01, "weight_decay": 0.1}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def parameters(seed: int = 0) -> list[nn.Parameter]:
    torch.manual_seed(seed)
    values = [torch.randn(shape) for shape in SHAPES]
    values[0] = values[0].t().contiguous().t()
    return [nn.Parameter(value) for value in values]


def set_gradients(weights: list[nn.Parameter], step: int, frozen: int | None = None) -> None:
    generator = torch.Generator().manual_seed(step)
    for i, weight in enumerate(weights):
        gradient = torch.randn(weight.shape, generator=generator)
        weight.grad = None if i == frozen else torch.empty_like(weight).copy_(gradient)


@pytest.mark.parametrize(("kind", "usual"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_torch_in_double_precision(
    kind: Any, usual: Any, weight_decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch)
    mine = parameters()
    exact = [nn.Parameter(w.detach().double()) for w in mine]
    kwargs = KWARGS | {"weight_decay": weight_decay}
    one, other = kind(mine, fused=True, **kwargs), usual(exact, foreach=False, **kwargs)
    n_steps = 12
    for step in range(n_steps):
        # The third tensor has no gradient in some of the steps, and makes fewer of them.
        set_gradients(mine, step, frozen=2 if step % 3 == 1 else None)
        for weight, wide in zip(mine, exact, strict=True):
            wide.grad = None if weight.grad is None else weight.grad.double()
        one.step()
        other.step()
    assert len(calls) == n_steps - 1
    for i, (weight, wide) in enumerate(zip(mine, exact, strict=True)):
        torch.testing.assert_close(weight.double(), wide, rtol=2e-6, atol=2e-6)
        state, wide_state = one.state[weight], other.state[wide]
        assert float(state["step"]) == float(wide_state["step"]) == (8 if i == 2 else n_steps)
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(state[name].double(), wide_state[name], rtol=2e-6, atol=1e-7)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of tensors in each call of the kernel by an optimizer."""
    calls: list[int] = []

    def counted(table: AdamTable, gradients: list[Tensor], **kwargs: Any) -> None:
        calls.append(len(gradients))
        adam_step(table, gradients, **kwargs)

    monkeypatch.setattr(optimizers, "adam_step", counted)
    return calls


def test_results_do_not_depend_on_the_number_of_threads(threads: None) -> None:
    found = []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        weights = parameters()
        optimizer = Adam(weights, fused=True, **KWARGS)
        for step in range(4):
            set_gradients(weights, step)
            optimizer.step()
        found.append([w.detach() for w in weights])
        assert [float(s["step"]) for s in optimizer.state.values()] == [4.0] * len(weights)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_a_loaded_state_continues_bit_by_bit() -> None:
    weights = parameters()
    optimizer = AdamW(weights, fused=True, **KWARGS)
    for step in range(3):
        set_gradients(weights, step)
        optimizer.step()
    others = [nn.Parameter(w.detach().clone()) for w in weights]
    resumed = AdamW(others, fused=True, **KWARGS)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(3, 6):
        for each, made in ((weights, optimizer), (others, resumed)):
            set_gradients(each, step)
            made.step()
    assert all(map(torch.equal, weights, others))


def test_hooks_and_the_count_of_changes_are_those_of_any_step() -> None:
    weights = parameters()
    optimizer = Adam(weights, fused=True, **KWARGS)
    called: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    for step in range(3):
        set_gradients(weights, step)
        optimizer.step()
    assert called == 3 * ["before", "after"]
    # Autograd notices that a weight changed after it was used.
    result = (weights[1] ** 3).sum()
    set_gradients(weights, 4)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


@pytest.mark.parametrize(
    "case",
    ["first", "amsgrad", "maximize", "rate", "not fused", "scaled", "double", "small", "setting"],
)
def test_other_steps_are_left_to_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    shape = (8, 8) if case == "small" else (4, MIN_KERNEL_SIZE)
    weight = nn.Parameter(torch.ones(shape, dtype=torch.float64 if case == "double" else None))
    kwargs: dict[str, Any] = {"lr": 0.1, "fused": case != "not fused"}
    if case in ("amsgrad", "maximize"):
        kwargs[case] = True
    if case == "rate":
        kwargs["lr"] = torch.tensor(0.1)
    if case == "setting":
        monkeypatch.setitem(settings.values, "kernels", "torch")
    optimizer = Adam([weight], **kwargs)
    if case == "scaled":
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)
    for _ in range(1 if case == "first" else 2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert not calls
    assert torch.equal(weight, weight[:1, :1].expand_as(weight))
    assert not torch.equal(weight.detach(), torch.ones_like(weight))


@pytest.mark.parametrize("wrong", ["exp_avg", "exp_avg_sq"])
def test_tensors_of_other_layouts_are_not_supported(wrong: str) -> None:
    names = ("parameter", "exp_avg", "exp_avg_sq")
    parts: dict[str, Tensor] = {name: torch.zeros(4, 6) for name in names}
    assert has_adam_kernel(AdamWeights(**parts, step=torch.tensor(1.0)))
    parts[wrong] = torch.zeros(6, 4).t()
    assert not has_adam_kernel(AdamWeights(**parts, step=torch.tensor(1.0)))
    parts[wrong] = torch.zeros(4, 6, dtype=torch.float64)
    assert not has_adam_kernel(AdamWeights(**parts, step=torch.tensor(1.0)))
    gaps = AdamWeights(*(torch.zeros(4, 12)[:, ::2] for _ in range(3)), torch.tensor(1.0))
    assert not has_adam_kernel(gaps)


@pytest.mark.parametrize(
    "change",
    [
        "nothing", "gradient", "values", "state", "moment", "memory of a moment", "count", "order",
        "fewer", "more", "fewer rows", "memory order", "precision", "sparse",
    ],
)  # fmt: skip
def test_a_table_is_made_anew_when_a_tensor_was_replaced(change: str) -> None:
    weights = [nn.Parameter(torch.zeros(4, 6)) for _ in range(2)]
    optimizer = Adam(weights, fused=True)
    for weight in weights:
        weight.grad = torch.zeros(4, 6)
    optimizer.step()
    table = make_table(weights, optimizer.state)
    assert table is not None and table.n_elements == 48
    last, state = weights[1], optimizer.state[weights[1]]
    parameters = list(weights)
    if change == "gradient":
        last.grad = torch.ones(4, 6)
    if change == "values":
        last.data = torch.zeros(4, 6)
    if change == "state":
        optimizer.state[last] = {key: value.clone() for key, value in state.items()}
    if change in ("moment", "count"):
        name = {"moment": "exp_avg_sq", "count": "step"}[change]
        state[name] = state[name].clone()
    if change == "memory of a moment":
        state["exp_avg"].data = state["exp_avg"].clone()
    if change == "fewer rows":
        last.data, last.grad = last.data[:3], torch.zeros(3, 6)
    if change == "order":
        parameters.reverse()
    if change == "fewer":
        last.grad = None
    if change == "more":
        parameters.append(nn.Parameter(torch.zeros(2)))
        parameters[2].grad = torch.zeros(2)
    if change == "memory order":
        last.grad = torch.zeros(6, 4).t()
    if change == "sparse":
        last.grad = torch.zeros(4, 6).to_sparse()
    if change == "precision":
        last.data, last.grad = last.data.double(), torch.zeros(4, 6, dtype=torch.float64)
    gradients = table.read_gradients(parameters, optimizer.state)
    if change in ("nothing", "gradient"):
        assert gradients is not None
        assert all(g is weight.grad for g, weight in zip(gradients, weights, strict=True))
    else:
        assert gradients is None


def test_frozen_and_thawed_weights_and_a_loaded_state_take_the_right_tensors() -> None:
    # Each is a table of its own; a table that was not made anew would change other memory.
    one, other = parameters(), parameters()
    kernel = Adam(one, fused=True, **KWARGS)
    usual = torch.optim.Adam(other, foreach=False, **KWARGS)
    for step in range(12):
        if step == 6:
            kernel.load_state_dict(copy.deepcopy(kernel.state_dict()))
        if step == 8:
            one[1].data = one[1].data.clone()
        frozen = {3: 0, 4: 0, 9: 4}.get(step)
        set_gradients(one, step, frozen)
        set_gradients(other, step, frozen)
        kernel.step()
        usual.step()
    for weight, expected in zip(one, other, strict=True):
        torch.testing.assert_close(weight, expected, rtol=2e-5, atol=2e-6)

"""Optimizer and schedule from options."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellvae.errors import InvalidOptionError
from cellvae.model.scvi import SCVIModule
from cellvae.train.loop.optimizers import (
    Adam,
    AdamW,
    align_optimizer_state,
    make_optimizer,
    make_plateau,
)
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
    PlateauOptions,
)


def test_the_default_is_adam_as_scvi_tools_sets_it(module: SCVIModule) -> None:
    optimizer = make_optimizer(module, OptimizerOptions())
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.Adam)
    assert not isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["eps"], group["weight_decay"]) == (1e-3, 0.01, 1e-6)
    assert len(group["params"]) == len(list(module.parameters()))


def test_frozen_parameters_wait_in_the_optimizer(module: SCVIModule) -> None:
    module.z_encoder.requires_grad_(requires_grad=False)
    optimizer = make_optimizer(module, OptimizerOptions(weight_decay=0.1))
    chosen = optimizer.param_groups[0]["params"]
    assert {id(p) for p in module.parameters()} == {id(p) for p in chosen}
    before = [p.clone() for p in module.z_encoder.parameters()]
    sum(p.sum() for p in module.parameters() if p.requires_grad).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert all(map(torch.equal, before, module.z_encoder.parameters()))
    module.requires_grad_(requires_grad=False)
    with pytest.raises(InvalidOptionError, match="all are frozen"):
        make_optimizer(module, OptimizerOptions())


def test_only_the_decoder_changes_if_requested(module: SCVIModule) -> None:
    chosen = make_optimizer(module, OptimizerOptions(update_only_decoder=True)).param_groups[0][
        "params"
    ]
    assert {id(p) for p in chosen} == {id(p) for p in module.decoder.parameters()}


def test_an_optimizer_of_ones_own_is_made_by_its_creator(module: SCVIModule) -> None:
    options = OptimizerOptions(
        optimizer="Custom", optimizer_creator=lambda p: torch.optim.SGD(p, lr=0.5)
    )
    assert type(make_optimizer(module, options)) is torch.optim.SGD


def test_the_rate_falls_after_its_patience_on_an_absolute_threshold(module: SCVIModule) -> None:
    optimizer = make_optimizer(module, OptimizerOptions(lr=1.0))
    plateau = make_plateau(optimizer, PlateauOptions(factor=0.5, patience=2, threshold=1.0))
    rates = []
    for value in (10.0, 9.5, 9.4, 9.3, 9.2, 5.0):
        plateau.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("amsgrad", [True, False])
@pytest.mark.parametrize(("kind", "usual"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
@pytest.mark.parametrize("weight_transposed", [True, False])
@pytest.mark.parametrize("gradient_transposed", [True, False])
def test_steps_do_not_depend_on_the_layout_in_memory(
    kind: Any, usual: Any, fused: bool, amsgrad: bool, weight_transposed: bool,
    gradient_transposed: bool,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 70), torch.randn(5)
    kwargs = {"lr": 0.1, "weight_decay": 0.01, "fused": fused, "amsgrad": amsgrad}

    def laid_out(values: torch.Tensor, transposed: bool) -> torch.Tensor:
        return values.t().contiguous().t() if transposed else values.clone()

    mine = [torch.nn.Parameter(laid_out(weight, weight_transposed)), torch.nn.Parameter(bias)]
    plain = [torch.nn.Parameter(weight.clone()), torch.nn.Parameter(bias.clone())]
    one, other = kind(mine, **kwargs), usual(plain, **kwargs)
    for _ in range(3):
        gradient, of_bias = torch.randn(5, 70), torch.randn(5)
        mine[0].grad, mine[1].grad = laid_out(gradient, gradient_transposed), of_bias
        plain[0].grad, plain[1].grad = gradient, of_bias
        one.step()
        other.step()
    torch.testing.assert_close(mine[0], plain[0], rtol=1e-6, atol=1e-7)
    assert torch.equal(mine[1], plain[1])
    assert one.state[mine[0]]["exp_avg"].stride() == mine[0].stride()


def test_optimizer_state_gets_the_strides_of_the_weights() -> None:
    weight = torch.nn.Parameter(torch.randn(5, 7))
    optimizer = Adam([weight])
    weight.grad = torch.randn(5, 7)
    optimizer.step()
    before = {k: v.clone() for k, v in optimizer.state[weight].items()}
    weight.data = weight.data.t().contiguous().t()
    align_optimizer_state(optimizer)
    for name, value in optimizer.state[weight].items():
        assert torch.equal(value, before[name])
        assert value.ndim == 0 or value.stride() == (1, 5)


CASES = ("groups", "waiting", "maximize", "closure", "rate", "double", "scaled")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("kind", "usual"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_steps_made_at_once_are_those_of_torch_bit_by_bit(kind: Any, usual: Any, case: str) -> None:
    torch.manual_seed(0)
    dtype = torch.float64 if case == "double" else torch.float32
    first = [torch.randn(shape, dtype=dtype) for shape in ((3, 40), (3,), (7, 2))]
    called = []

    def run(make: Any) -> tuple[list[torch.Tensor], dict[str, Any]]:
        torch.manual_seed(1)
        weights = [torch.nn.Parameter(values.clone()) for values in first]
        given: Any = weights
        if case == "groups":
            given = [{"params": weights[:1], "lr": 0.3}, {"params": weights[1:], "eps": 0.1}]
        kwargs = {"lr": 0.1, "weight_decay": 0.2, "fused": True, "maximize": case == "maximize"}
        optimizer = make(given, **kwargs)
        optimizer.register_step_post_hook(lambda *_: called.append(make))
        for step in range(6):
            for i, weight in enumerate(weights):
                waits = case == "waiting" and (step + i) % 3 == 0
                weight.grad = None if waits else torch.randn_like(weight)
            if case == "rate":
                rate: Any = 0.5 / (1 + step)
                optimizer.param_groups[0]["lr"] = torch.tensor(rate) if step == 3 else rate
            if case == "scaled":
                optimizer.grad_scale = torch.tensor(4.0)
                optimizer.found_inf = torch.tensor(float(step == 2))
            value = optimizer.step((lambda: 4.0) if case == "closure" else None)
            assert value == (4.0 if case == "closure" else None)
        return [w.detach() for w in weights], optimizer.state_dict()

    (mine, my_state), (theirs, their_state) = run(kind), run(usual)
    assert all(map(torch.equal, mine, theirs))
    assert called == [kind] * 6 + [usual] * 6
    for name, kept in their_state["state"].items():
        assert all(torch.equal(my_state["state"][name][k], v) for k, v in kept.items())

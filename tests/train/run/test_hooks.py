"""Hooks of callbacks run in the order of the page about them, and its example works."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from cellvae.model import SCVI

pytestmark = pytest.mark.trains

DOCS = Path(__file__).resolve().parents[3] / "docs"
KWARGS: dict[str, Any] = {
    "batch_size": 32,
    "check_val_every_n_epoch": 1,
    "enable_progress_bar": False,
    "accelerator": "cpu",
    "seed": 0,
}
STEP_HOOKS = {
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
}
BLOCK_HOOKS = {"on_step_start", "on_step_end"}


def documented_hooks() -> dict[str, str]:
    """Hooks of the table of the page, in its order, and whose they are."""
    rows = re.findall(r"^\| ↳* ?`(\w+)` \| (\w+) \|", (DOCS / "hooks.md").read_text(), re.MULTILINE)
    return dict(rows)


def recorder(without: set[str]) -> tuple[pl.Callback, list[str]]:
    """Callback that records the hooks of the page as they are called, without some."""
    called: list[str] = []

    def hook(name: str) -> Any:
        return lambda self, *_, **__: called.append(name)

    names = documented_hooks().keys() - without
    cls = type("Recorder", (pl.Callback,), {name: hook(name) for name in names})
    return cls(), called


@pytest.mark.parametrize("without", [STEP_HOOKS, BLOCK_HOOKS], ids=["blocks", "single steps"])
def test_the_hooks_run_in_the_order_of_the_page(model: SCVI, without: set[str]) -> None:
    callback, called = recorder(without)
    model.train(2, callbacks=callback, **KWARGS)
    expected = [name for name in documented_hooks() if name not in {*without, "on_interrupt"}]
    assert list(dict.fromkeys(called)) == expected
    # 72 training cells in batches of 32, in both epochs.
    step = [name for name in expected if name in (STEP_HOOKS | BLOCK_HOOKS)]
    assert [name for name in called if name in step] == step * 6
    assert called.count("on_epoch_complete") == 2
    assert called.count("on_stop") == 1
    block_size = model.training_report.steps_per_block
    assert block_size == (1 if without == BLOCK_HOOKS else 3)


def test_the_page_names_all_hooks_of_lightning_that_a_run_calls() -> None:
    ours = {name for name, owner in documented_hooks().items() if owner == "cellvae"}
    lightnings = documented_hooks().keys() - ours
    of_training = {
        name
        for name in dir(pl.Callback)
        if name.startswith(("on_", "setup", "teardown"))
        and not name.startswith(("on_test", "on_predict", "on_sanity", "on_save", "on_load"))
    }
    assert lightnings == of_training - {"on_exception"}
    assert ours == BLOCK_HOOKS | {"on_epoch_complete", "on_interrupt", "on_stop"}


def test_the_example_of_the_page_logs_and_stops(model: SCVI) -> None:
    cls = runpy.run_path(str(DOCS / "examples" / "own_callback.py"))["KLFraction"]
    callback = cls(threshold=1.0)
    model.train(5, callbacks=callback, **KWARGS)
    assert model.history["kl_fraction"].shape == (1, 1)
    assert callback.n_steps == 3
    why = "stopped early: the KL is a small fraction of the loss"
    assert callback.ending == f"stopped_early after 1 epochs: {why}"
    assert model.training_report.reason == why

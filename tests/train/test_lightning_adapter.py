"""Private names of Lightning do what the package needs of them, in this version of Lightning."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from cellvae.train.lightning_adapter import all_batches_are_done, make_state_key


class Watcher(pl.Callback):
    """Notes after each batch and each epoch whether all batches of the epoch are done."""

    def __init__(self) -> None:
        self.after_batches: list[bool] = []
        self.after_epochs: list[bool] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.after_batches.append(all_batches_are_done(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.after_epochs.append(all_batches_are_done(trainer))


class Line(pl.LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return (self.weight * batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.trains
@pytest.mark.trains
@pytest.mark.filterwarnings("ignore")
def test_an_epoch_is_done_after_its_last_batch() -> None:
    watcher = Watcher()
    trainer = pl.Trainer(
        max_epochs=2, callbacks=[watcher], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Line(), DataLoader(torch.ones(3)))
    assert watcher.after_batches == [False, False, True] * 2
    assert watcher.after_epochs == [True] * 2


def test_keys_of_states_differ_by_class_and_arguments() -> None:
    keys = {make_state_key(Watcher(), name, "min") for name in ("a", "b", "a")}
    assert keys == {f"Watcher{{'monitor': '{name}', 'mode': 'min'}}" for name in "ab"}

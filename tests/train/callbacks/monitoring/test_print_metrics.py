"""Lines of metrics."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.monitoring.print_metrics import PrintMetrics
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


def train(module: Any, rows: Any, split: Any, callback: pl.Callback, **kwargs: Any) -> RunResult:
    parsed = parse_train_kwargs(
        {"max_epochs": 5, "enable_progress_bar": False, "batch_size": 16, **kwargs}
    )
    return fit(module, rows, split, parsed.options, seed=1, callbacks=[callback])


def test_a_line_has_the_metrics_of_its_epoch(
    module: Any, rows: Any, split: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cellvae")
    # Validation is switched on by the name, which may be spelt in the other way too.
    printer = PrintMetrics(2, ["validation_elbo", "elbo_train"], ".2f")
    history = train(module, rows, split, printer).history
    expected = [
        f"Epoch {e}: elbo_validation {history.rows[e]['elbo_validation']:.2f}"
        f"  elbo_train {history.rows[e]['elbo_train']:.2f}"
        for e in (1, 3, 4)
    ]
    assert [r.getMessage() for r in caplog.records] == expected


def test_all_metrics_are_told_where_none_are_named(
    module: Any, rows: Any, split: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cellvae")
    history = train(module, rows, split, PrintMetrics(), max_epochs=1).history
    (line,) = [r.getMessage() for r in caplog.records]
    assert all(f"{name} {value:.4g}" in line for name, value in history.rows[0].items())


def test_a_bare_trainer_is_told_too(caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    class Small(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("mine", 3.0, on_epoch=True, on_step=False)
            return self.weight**2

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    caplog.set_level(logging.INFO, "cellvae")
    trainer = pl.Trainer(
        max_epochs=1, callbacks=[PrintMetrics(metrics=["mine"])], logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, log_every_n_steps=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Small(), torch.utils.data.DataLoader([torch.ones(1)]))
    told = [r.getMessage() for r in caplog.records if r.name == "cellvae"]
    assert told == ["Epoch 0: mine 3"]


def test_a_misspelt_name_is_refused_and_one_name_is_no_list_of_letters(
    module: Any, rows: Any, split: Any
) -> None:
    assert PrintMetrics(metrics="elbo_train").followed_metrics() == ["elbo_train"]
    with pytest.raises(InvalidOptionError, match="Did you mean 'elbo_train'"):
        train(module, rows, split, PrintMetrics(metrics="elbo_trian"))


@pytest.mark.parametrize("kwargs", [{"every_n_epochs": 0}, {"format": "nonsense"}])
def test_wrong_words_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(kwargs)).split("_")[0]):
        PrintMetrics(**kwargs)

"""The progress bar."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import pytest
import torch

from cellvae.data import Split
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train import EpochBar
from cellvae.train.callbacks.defaults import build_callbacks
from cellvae.train.callbacks.monitoring import progress
from cellvae.train.loop.lightning_quiet import quiet_lightning
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


def run(module: Any, rows: Any, split: Split, **kwargs: Any) -> None:
    parsed = parse_train_kwargs({"max_epochs": 3, "check_val_every_n_epoch": 1, **kwargs})
    assert (
        fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks).error is None
    )


def test_a_terminal_sees_epochs_and_elbo(
    module: Any,
    rows: Any,
    split: Split,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(module, rows, split)
    shown = capsys.readouterr().err
    assert re.search(r"Epoch 3/3 100%.*ELBO train \d+\.\d\d, validation \d+\.\d\d", shown)


@pytest.mark.parametrize("kwargs", [{}, {"enable_progress_bar": False}])
def test_a_file_stays_quiet(
    module: Any, rows: Any, split: Split, capsys: pytest.CaptureFixture[str], kwargs: dict[str, Any]
) -> None:
    run(module, rows, split, **kwargs)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out == ""


def test_a_bar_of_the_users_replaces_ours() -> None:
    bar = pl.callbacks.TQDMProgressBar()
    chosen = build_callbacks(parse_train_kwargs({}).options, [bar])
    assert [c for c in chosen if isinstance(c, pl.callbacks.ProgressBar)] == [bar]
    assert any(isinstance(c, EpochBar) for c in build_callbacks(parse_train_kwargs({}).options))
    steps = build_callbacks(parse_train_kwargs({"simple_progress_bar": False}).options)
    assert any(isinstance(c, pl.callbacks.TQDMProgressBar) for c in steps)


class Shown(EpochBar):
    """Bar that notes what it shows after each batch and epoch."""

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate)
        self.places: list[float] = []
        self.epochs: list[int] = []
        self.texts: list[str] = []

    def move(self, trainer: Any, n_batches: float) -> None:
        super().move(trainer, n_batches)
        assert self.bar is not None
        self.places.append(self.bar.n)

    def draw(self, trainer: Any, done: int) -> None:
        super().draw(trainer, done)
        assert self.bar is not None
        self.epochs.append(done)
        self.texts.append(str(self.bar))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal, and no waiting between two redraws."""
    monkeypatch.setattr(progress, "is_interactive", lambda: True)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", -1.0)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("rate", "drawn"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_metrics_are_shown_every_n_epochs(
    module: Any, rows: Any, split: Split, rate: int, drawn: list[int]
) -> None:
    bar = Shown(rate)
    run(module, rows, split, callbacks=[bar], max_epochs=5)
    assert bar.epochs == [*drawn, 5]  # once more when the run ends
    assert bar.bar is None


@pytest.mark.usefixtures("terminal")
def test_the_bar_moves_within_training_and_validation(module: Any, rows: Any, split: Split) -> None:
    bar = Shown()
    kwargs: dict[str, Any] = {"max_epochs": 4, "batch_size": 5, "check_val_every_n_epoch": 2}
    kwargs["steps_per_block"] = 1
    # Batches that are counted are as small as those of training.
    kwargs["limit_val_batches"] = 1.0
    run(module, rows, split, callbacks=[bar], **kwargs)
    # 10 batches of training, and in every second epoch 2 of validation. How many there are is not
    # known in the first epoch that has some: the bar waits for them, and never goes back.
    tenths, twelfths = [i / 10 for i in range(1, 11)], [i / 12 for i in range(1, 13)]
    first, second = tenths, [1 + i for i in (*tenths, 1, 1)]
    third, fourth = [2 + i for i in tenths], [3 + i for i in twelfths]
    assert bar.places == pytest.approx([*first, *second, *third, *fourth])
    assert "Epoch 4/4 100%" in bar.texts[-1]
    bar = Shown()
    run(module, rows, split, callbacks=[bar], **kwargs | {"steps_per_block": 4})
    tenths, twelfths = [0.4, 0.8, 1], [4 / 12, 8 / 12, 10 / 12, 11 / 12, 1]
    first, second = tenths, [1 + i for i in (*tenths, 1, 1)]
    third, fourth = [2 + i for i in tenths], [3 + i for i in twelfths]
    assert bar.places == pytest.approx([*first, *second, *third, *fourth])


@pytest.mark.usefixtures("terminal")
def test_what_may_end_the_run_is_shown(module: Any, rows: Any, split: Split) -> None:
    class Scores(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            pl_module.log("my_score", 0.25 + trainer.current_epoch, batch_size=1)

        def produced_metrics(self) -> list[str]:
            return ["my_score"]

    bar = Shown()
    run(
        module,
        rows,
        split,
        callbacks=[bar, Scores()],
        early_stopping=True,
        early_stopping_monitor="my_score",
        early_stopping_mode="max",
    )
    assert re.search(r"validation \d+\.\d\d, my_score 2\.25", bar.texts[-1])
    plain = Shown()
    run(module, rows, split, callbacks=[plain], early_stopping=True)
    assert re.search(r"ELBO train \d+\.\d\d, validation \d+\.\d\d$", plain.texts[-1].strip())


def test_nothing_is_shown_with_rate_zero(
    module: Any,
    rows: Any,
    split: Split,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = EpochBar(0)
    run(module, rows, split, callbacks=[bar])
    run(module, rows, split, progress_bar_refresh_rate=0)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""
    with pytest.raises(InvalidOptionError, match="at least 0"):
        EpochBar(-1)
    bar.enable()  # whoever asks for it after all sees every epoch
    run(module, rows, split, callbacks=[bar])
    assert "Epoch 3/3 100%" in capsys.readouterr().err


def test_plain_lines_where_there_is_no_terminal(
    module: Any,
    rows: Any,
    split: Split,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with caplog.at_level(logging.INFO, logger="cellvae"):
        run(module, rows, split, max_epochs=5, progress_bar_refresh_rate=2)
    lines = [r.getMessage() for r in caplog.records]
    assert [line.split()[1] for line in lines] == ["2/5", "4/5", "5/5"]
    assert all(re.fullmatch(r"Epoch ./5 ELBO train [\d.]+, validation [\d.]+", x) for x in lines)


@pytest.mark.usefixtures("terminal")
def test_the_bar_is_closed_where_a_run_fails(module: Any, rows: Any, split: Split) -> None:
    class Failing(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            raise ValueError("no more")

    bar = Shown()
    parsed = parse_train_kwargs({"max_epochs": 3, "callbacks": [bar, Failing()]})
    outcome = fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)
    assert isinstance(outcome.error, ValueError)
    assert bar.bar is None


@pytest.mark.usefixtures("terminal")
def test_a_run_that_goes_on_begins_where_it_was(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[:200].copy()
    SCVI.setup_anndata(adata)

    class Broken(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    def trained(*callbacks: pl.Callback) -> None:
        torch.manual_seed(0)
        model = SCVI(adata, n_hidden=8)
        kwargs: dict[str, Any] = {"run_dir": tmp_path, "resume": "auto", "accelerator": "cpu"}
        model.train(max_epochs=4, callbacks=list(callbacks), **kwargs)

    trained(Broken())
    capsys.readouterr()
    bar = Shown()
    trained(bar)
    shown = capsys.readouterr().err
    assert re.search(r"Epoch 3/4 +50%", shown)
    assert "Epoch 1/4" not in shown
    assert bar.places[0] > 2
    assert bar.epochs == [3, 4, 4]


@pytest.mark.usefixtures("terminal")
def test_a_bare_trainer_without_a_last_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    cells = torch.utils.data.TensorDataset(torch.ones(6, 1))
    bar = Shown()
    trainer = pl.Trainer(
        max_epochs=-1,
        max_steps=5,
        callbacks=[bar],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    with quiet_lightning():
        trainer.fit(Line(), torch.utils.data.DataLoader(cells, batch_size=2))
    assert bar.epochs[0] == 1
    assert bar.places == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
    assert "Epoch 2" in capsys.readouterr().err


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("enabled", [True, False])
def test_a_bar_that_is_given_is_the_only_one(
    module: Any, rows: Any, split: Split, enabled: bool
) -> None:
    # Lightning refuses two bars, and one where bars are switched off.
    bar = Shown()
    run(module, rows, split, callbacks=[bar], enable_progress_bar=enabled)
    assert bar.epochs == [1, 2, 3, 3]

"""The progress bar."""

from __future__ import annotations

import re
import sys
from typing import Any

import lightning.pytorch as pl
import pytest

from cellvae.data import Split
from cellvae.train import EpochBar
from cellvae.train.arguments import parse
from cellvae.train.callbacks.choose import build_callbacks
from cellvae.train.fit import fit


def run(module: Any, rows: Any, split: Split, **words: Any) -> None:
    parsed = parse({"max_epochs": 3, "check_val_every_n_epoch": 1, **words})
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


@pytest.mark.parametrize("words", [{}, {"enable_progress_bar": False}])
def test_a_file_stays_quiet(
    module: Any, rows: Any, split: Split, capsys: pytest.CaptureFixture[str], words: dict[str, Any]
) -> None:
    run(module, rows, split, **words)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out == ""


def test_a_bar_of_the_users_replaces_ours() -> None:
    bar = pl.callbacks.TQDMProgressBar()
    chosen = build_callbacks(parse({}).options, [bar])
    assert [c for c in chosen if isinstance(c, pl.callbacks.ProgressBar)] == [bar]
    assert any(isinstance(c, EpochBar) for c in build_callbacks(parse({}).options))
    steps = build_callbacks(parse({"simple_progress_bar": False}).options)
    assert any(isinstance(c, pl.callbacks.TQDMProgressBar) for c in steps)

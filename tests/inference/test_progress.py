"""Bars of passes: shown to people only, and only where they are wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cellvae.inference import progress
from cellvae.inference.progress import is_interactive, with_progress
from cellvae.model import SCVI
from cellvae.settings import settings


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Someone who watches, and bars that come at once."""
    monkeypatch.setattr(progress, "is_interactive", lambda: True)
    monkeypatch.setattr(progress, "BAR_DELAY_SECONDS", 0.0)
    shown = settings.progress_bar
    yield
    settings.progress_bar = shown


def batches() -> Iterator[tuple[slice, str]]:
    yield slice(0, 3), "first"
    yield slice(3, 5), "second"


@pytest.mark.usefixtures("watched")
def test_a_bar_counts_cells_and_goes_when_the_pass_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(with_progress(batches(), 5)) == list(batches())
    first, _, last = capsys.readouterr().err.strip("\r").partition("\r")
    assert "0.00/5.00" in first
    assert "cells" in first
    assert last.strip() == ""


def test_nothing_is_shown_where_nobody_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "BAR_DELAY_SECONDS", 0.0)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert len(list(with_progress(batches(), 5))) == 2
    assert capsys.readouterr().err == ""


def test_a_terminal_or_a_notebook_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not is_interactive()
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert is_interactive()
    monkeypatch.delitem(sys.modules, "ipykernel")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert is_interactive()


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("how", ["argument", "settings", "short"])
def test_bars_can_be_turned_off(
    how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "settings":
        settings.progress_bar = False
    if how == "short":
        monkeypatch.setattr(progress, "BAR_DELAY_SECONDS", 2.0)
    assert len(list(with_progress(batches(), 5, silent=how == "argument"))) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.trains
@pytest.mark.usefixtures("watched")
def test_passes_of_a_model_show_a_bar(
    trained: Callable[..., SCVI], capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained()
    capsys.readouterr()
    model.get_normalized_expression(silent=True)
    assert capsys.readouterr().err == ""
    for ask in (model.get_normalized_expression, model.get_latent_representation):
        ask()
        assert "cells" in capsys.readouterr().err


@pytest.mark.trains
@pytest.mark.usefixtures("watched")
def test_an_interrupt_ends_a_pass_at_once(
    trained: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = trained(), []

    def encode(*_: Any) -> Any:
        calls.append(1)
        raise KeyboardInterrupt

    training = [part.training for part in model.module.modules()]
    monkeypatch.setattr(type(model.module), "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        model.get_normalized_expression(batch_size=16)
    assert len(calls) == 1
    assert [part.training for part in model.module.modules()] == training

"""The program `cellvae` itself."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cellvae
from cellvae.cli import main
from cellvae.errors import InvalidOptionError, TrainingError

ROOT = Path(__file__).resolve().parents[2]


def test_the_installed_program_is_the_one_with_short_errors() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"cellvae": "cellvae.cli.main:run"}


def test_help_lists_the_commands(program: Callable[..., Any]) -> None:
    ended = program("--help")
    assert ended.code == 0
    for word in ("train", "demo", "compile-kernels", "--version"):
        assert word in ended.out


def test_the_version_is_that_of_the_package(program: Callable[..., Any]) -> None:
    assert program("--version") == (0, f"cellvae {cellvae.__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidOptionError("Expected\n  this."), 2, "cellvae: Expected this."),
        (TrainingError("NaN\nin epoch 3"), 1, "cellvae: training failed: NaN in epoch 3"),
        (PermissionError(13, "Permission denied", "x"), 2, "[Errno 13] Permission denied: 'x'"),
    ],
)
def test_errors_that_a_user_caused_are_one_line(
    error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, main.print_errors_in_one_line():
        raise error
    assert ended.value.code == code
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.endswith(line)


def test_errors_of_the_program_itself_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError), main.print_errors_in_one_line():
        raise ZeroDivisionError


@pytest.mark.parametrize("usable", [True, False])
def test_kernels_are_compiled_ahead(
    program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    found = {"count_log_prob": True, "sparse_linear": usable}
    monkeypatch.setattr("cellvae.kernels.dispatch.compile_kernels", lambda: found)
    ended = program("compile-kernels")
    assert ended.code == (0 if usable else 2)
    if usable:
        assert "All kernels are compiled, in " in ended.out
    else:
        assert "could not compile sparse_linear" in ended.err

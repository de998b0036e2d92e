"""`python -m cellvae` is the command `cellvae`."""

from __future__ import annotations

import runpy
import sys

import pytest

from cellvae.version import __version__


def test_the_package_can_be_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "cellvae.__main__", raising=False)
    monkeypatch.setattr(sys, "argv", ["cellvae", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("cellvae", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cellvae {__version__}\n"

"""Folders, names and import contracts keep the shape that CONTRIBUTING describes."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_code_keeps_its_shape() -> None:
    figures = runpy.run_path(str(Path(__file__).with_name("figures.py")))["figures"]
    found = figures(ROOT)
    assert found["folders with more than 12 modules"] == "0"
    assert found["of these in two modules of one folder"] == "0"
    assert found["functions named by a bare past participle"] == "0"
    assert found["imports that contracts ignore"] == "0"
    assert found["uses of private names of other packages"] == "0"

"""The public surface is a list under review: a name comes or goes only on purpose."""

from __future__ import annotations

import runpy
from pathlib import Path

HERE = Path(__file__).parent


def test_the_public_names_are_those_of_the_reviewed_list() -> None:
    actual = set(runpy.run_path(str(HERE / "surface.py"))["surface"]())
    reviewed = set((HERE / "public_names.txt").read_text().split())
    assert actual == reviewed, (
        f"New: {sorted(actual - reviewed)}. Gone: {sorted(reviewed - actual)}. "
        "If that is on purpose, run `make public-names` and commit the list."
    )

"""The public surface is a list under review: a name comes or goes only on purpose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_public_names_are_those_of_the_reviewed_list() -> None:
    found = subprocess.run(
        [sys.executable, HERE / "surface.py"], capture_output=True, text=True, check=True
    )
    actual = set(found.stdout.split())
    reviewed = set((HERE / "public_names.txt").read_text().split())
    assert not (actual - reviewed) and not (reviewed - actual), (
        f"New: {sorted(actual - reviewed)}. Gone: {sorted(reviewed - actual)}. "
        "If that is on purpose, run `make public-names` and commit the list."
    )

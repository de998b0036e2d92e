"""Fixtures for every test of the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Where numba (of UMAP) shares its threads with torch, it would give torch more than the tests of a
# worker are to have, and two workers of two threads each on two cores are far slower than one.
os.environ.setdefault("NUMBA_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
# A pytest plugin of another package may have loaded numba before this file was read.
if "numba" in sys.modules:
    sys.modules["numba"].config.reload_config()

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cells beside a developer's checkout; a user's checkout does not have it."""
    folder = ROOT / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real cells is not beside this checkout")
    return folder.resolve()

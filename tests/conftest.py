"""Fixtures for every test of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cells beside a developer's checkout; a user's checkout does not have it."""
    folder = ROOT / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real cells is not beside this checkout")
    return folder.resolve()

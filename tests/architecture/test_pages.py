"""Pages about the code name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "cellvae"
NAMED = re.compile(r"(?<![\w/.<-])((?:[a-z_]+/)+(?:[a-z_0-9]+\.py)?)(?![\w/])")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = set(NAMED.findall((ROOT / page).read_text(encoding="utf-8")))
    assert len(named) > 10
    missing = {
        name
        for name in named
        if not any(
            (folder / name).exists() for folder in (PACKAGE, ROOT, ROOT / "src", ROOT / "tests")
        )
    }
    assert not missing, missing

"""`cellvae report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.trains
def test_a_page_about_a_run_of_the_program(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    assert program("train", counts, "--out", tmp_path / "run", *quick).code == 0

    ended = program("report", tmp_path / "run")
    assert ended.code == 0
    assert ended.out.strip() == str(tmp_path / "run" / "report.html")
    assert "holds no cells" in (tmp_path / "run" / "report.html").read_text()

    page = tmp_path / "pages" / "run.html"
    arguments = ("--adata", counts, "--batch-key", "batch", "--n-cells", 60)
    ended = program("report", tmp_path / "run", "--out", page, *arguments)
    assert ended.code == 0
    assert "coloured by batch" in page.read_text()


def test_a_folder_without_a_model_is_refused_in_one_line(
    program: Callable[..., Any], tmp_path: Path
) -> None:
    ended = program("report", tmp_path)
    assert ended.code == 2
    assert ended.err.startswith("cellvae: Expected a saved model in ")
    assert "run_dir" in ended.err

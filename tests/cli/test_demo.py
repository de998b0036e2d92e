"""`cellvae demo`: what it does to the folder it writes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellvae.cli import demo
from cellvae.cli.job import Job
from cellvae.cli.results import RESULT_FILES
from cellvae.core.options import from_kwargs
from cellvae.errors import UnknownOptionError
from cellvae.model.scvi import SCVIConfig
from cellvae.train.options.train_kwargs import parse_train_kwargs


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Job, Path]]:
    """Jobs that were asked for; none is run."""
    asked: list[tuple[Job, Path]] = []
    monkeypatch.setattr(
        demo, "run_job", lambda adata, job, out, overwrite: asked.append((job, out))
    )
    monkeypatch.setattr(demo, "print_summary", lambda model, out: None)
    return asked


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import cellvae.data

    cells = SimpleNamespace(n_obs=700, n_vars=765)
    monkeypatch.setattr(cellvae.data, "pbmc68k_reduced", lambda: cells)


@pytest.mark.usefixtures("no_data")
def test_a_folder_of_results_is_written_to_again_and_nothing_is_deleted(
    program: Callable[..., Any], jobs: list[tuple[Job, Path]], tmp_path: Path
) -> None:
    for name in RESULT_FILES:
        (tmp_path / name).mkdir()
    ended = program("demo", "--out", tmp_path)
    assert ended.code == 0, ended.err
    assert "700 cells x 765 genes" in ended.out
    assert [out for _, out in jobs] == [tmp_path]
    assert {path.name for path in tmp_path.iterdir()} == set(RESULT_FILES)


@pytest.mark.usefixtures("no_data")
def test_a_folder_with_other_files_is_left_alone(
    program: Callable[..., Any], jobs: list[tuple[Job, Path]], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "thesis.tex").write_text("mine")
    ended = program("demo", "--out", tmp_path)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "'thesis.tex'" in line
    assert not jobs
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_the_words_of_the_demo_are_known() -> None:
    from_kwargs(SCVIConfig, demo.JOB.config, "demo")
    parse_train_kwargs(demo.JOB.train)
    with pytest.raises(UnknownOptionError):
        parse_train_kwargs({**demo.JOB.train, "early_stoping": True})

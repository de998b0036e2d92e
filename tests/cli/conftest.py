"""The program run inside the test, and a small file of counts for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from cellvae.cli.main import run
from cellvae.data import synthetic_iid
from cellvae.settings import settings


class Ended(NamedTuple):
    """How a run of the program ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ended]]:
    """Run the program with these words; settings and random numbers are put back."""
    values, state, numpy_state = dict(settings.values), torch.get_rng_state(), np.random.get_state()
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")

    def program(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["cellvae", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
        shown = capsys.readouterr()
        return Ended(int(ended.value.code or 0), shown.out, shown.err)

    yield program
    settings.values.update(values)
    torch.set_rng_state(state)
    np.random.set_state(numpy_state)


@pytest.fixture(scope="session")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of 80 cells x 12 genes in two batches."""
    adata = synthetic_iid(batch_size=40, n_genes=12, n_proteins=0, n_regions=0)
    adata.obs["age"] = np.linspace(-1, 1, 80)
    adata.layers["raw"] = adata.X.copy()
    path = tmp_path_factory.mktemp("counts") / "counts.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """Flags for a run of a moment."""
    return ("--max-epochs", "2", "--n-hidden", "8", "--no-umap", "--no-enable-progress-bar")

"""The page about a model, as text and in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

from cellvae.errors import InvalidOptionError, UnknownKeyError
from cellvae.model import SCVI

pytestmark = pytest.mark.trains

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WIDTH = 390
"""Points that a phone is wide."""


def headings(path: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", path.read_text())


@pytest.fixture(scope="module")
def kang_page(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Page about a short training on real cells."""
    import anndata

    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[:700].copy()
    SCVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=32)
    model.train(6, early_stopping=True, enable_progress_bar=False, accelerator="cpu", seed=0)
    path = tmp_path_factory.mktemp("report") / "run.html"
    assert model.report(path, n_cells=400, silent=True) == path
    return path


def test_a_page_of_real_cells_has_every_part(kang_page: Path) -> None:
    text = kang_page.read_text()
    assert headings(kang_page) == [
        "Training",
        "Model",
        "Data",
        "Latent space",
        "Scores",
        "Do its counts look like the data?",
    ]
    # Four curves, two UMAPs, three checks.
    assert text.count("<svg ") == 9
    assert "CD14+ Monocytes" in text
    assert "kNN accuracy" in text
    accuracy = float(re.search(r"kNN accuracy\)</td><td>([\d.]+)", text).group(1))
    assert accuracy > 0.6


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_the_page_without_errors_and_a_phone_without_scrolling_sideways(
    kang_page: Path, tmp_path: Path
) -> None:
    outer = tmp_path / "outer.html"
    script = (
        "onload = () => { const d = document.querySelector('iframe').contentDocument;"
        "const drawn = [...d.querySelectorAll('svg')].filter(s => s.getBoundingClientRect()"
        ".height > 80).length; document.title = `wide ${d.documentElement.scrollWidth} "
        "drawn ${drawn} tables ${d.querySelectorAll('table').length}`; }"
    )
    page = kang_page.read_text().replace('"', "&quot;")
    outer.write_text(
        f'<iframe width="{WIDTH}" height="800" style="border:0" srcdoc="{page}"></iframe>'
        f"<script>{script}</script>"
    )
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    logged = ("--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}")
    shown = subprocess.run(
        [BROWSER, *flags, *logged, "--virtual-time-budget=4000", "--dump-dom", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<title>wide (\d+) drawn (\d+) tables (\d+)</title>", shown.stdout)
    assert found, shown.stdout[-300:]
    assert int(found.group(1)) <= WIDTH
    assert (int(found.group(2)), int(found.group(3))) == (9, 4)
    assert "CONSOLE" not in shown.stderr

    picture = tmp_path / "run.png"
    subprocess.run(
        [BROWSER, *flags, *logged, f"--screenshot={picture}", "--window-size=390,2000",
         kang_page.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )  # fmt: skip
    from matplotlib.image import imread

    pixels = imread(picture)[..., :3]
    # Neither empty nor one colour: curves, text and paper.
    assert len(np.unique((pixels * 255).astype(int).reshape(-1, 3), axis=0)) > 50


def test_what_is_not_there_is_left_out_with_a_reason(
    make: Callable[..., SCVI], adata: AnnData, trained: SCVI, tmp_path: Path
) -> None:
    untrained = make(adata)
    untrained.report(tmp_path / "new.html")
    assert "has not been trained" in (tmp_path / "new.html").read_text()

    trained.save(tmp_path / "model")
    without = SCVI.load(tmp_path / "model")
    without.report(tmp_path / "folder" / "bare.html")
    text = (tmp_path / "folder" / "bare.html").read_text()
    assert "holds no cells" in text
    assert "elbo_train" in text


def test_keys_colour_the_latent_space_and_random_numbers_stay(
    trained: SCVI, tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    trained.report(
        tmp_path / "a.html", batch_key="batch", labels_key="label", keys=["batch"], n_cells=40
    )
    assert torch.equal(torch.get_rng_state(), state)
    text = (tmp_path / "a.html").read_text()
    assert text.count("coloured by batch") == 1
    assert text.count("coloured by label") == 1
    trained.report(
        tmp_path / "b.html", batch_key="batch", labels_key="label", keys=["batch"], n_cells=40
    )
    assert re.sub(r"[a-z]+[0-9a-f]{6,}", "", text) == re.sub(
        r"[a-z]+[0-9a-f]{6,}", "", (tmp_path / "b.html").read_text()
    )


@pytest.mark.parametrize(
    ("path", "kwargs", "error", "match"),
    [
        ("run.pdf", {}, InvalidOptionError, "ends in .html"),
        ("run.html", {"n_cells": 2}, InvalidOptionError, "at least 10"),
        ("run.html", {"batch_key": "bacth"}, UnknownKeyError, "Did you mean 'batch'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(
    trained: SCVI, tmp_path: Path, path: str, kwargs: dict[str, Any], error: Any, match: str
) -> None:
    with pytest.raises(error, match=match):
        trained.report(tmp_path / path, **kwargs)
    assert not list(tmp_path.iterdir())


def test_a_minified_model_has_a_page(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData, tmp_path: Path
) -> None:
    model = train(make(adata))
    model.minify_adata()
    model.report(tmp_path / "run.html", n_cells=40)
    assert "could not be made" in (tmp_path / "run.html").read_text()

"""Folders for results that are files or links to nothing are refused, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellvae.core.files.output_files import check_output_folder
from cellvae.data import synthetic_iid
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train import SaveCheckpoint


@pytest.fixture
def places(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    return tmp_path


@pytest.mark.parametrize("name", ["file", "file/below", "dangling", "dangling/below"])
def test_a_folder_that_cannot_be_made_is_refused(places: Path, name: str) -> None:
    expected = "is a file" if "file" in name else "is a link to .*nowhere', which does not exist"
    with pytest.raises(InvalidOptionError, match=f"dir to be a folder; got .*{expected}"):
        check_output_folder(places / name, "dir")
    adata = synthetic_iid(batch_size=20, n_genes=5)
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=4)
    for save_format in ("cellvae", "scvi-tools"):
        with pytest.raises(InvalidOptionError, match="dir_path to be a folder"):
            model.save(places / name, format=save_format, overwrite=True)
    with pytest.raises(InvalidOptionError, match="dirpath to be a folder"):
        SaveCheckpoint(places / name)
    with pytest.raises(InvalidOptionError, match="run_dir to be a folder"):
        model.train(1, run_dir=places / name)
    assert (places / "file").read_text() == "mine" and not (places / "nowhere").exists()


@pytest.mark.parametrize("name", ["folder", "link", "link/new", "new/below"])
def test_a_folder_that_can_be_made_is_taken(places: Path, name: str) -> None:
    assert check_output_folder(str(places / name), "dir") == places / name

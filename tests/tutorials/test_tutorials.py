"""The tutorials run from top to bottom, and what they say of their figures holds."""

from __future__ import annotations

import runpy
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.trains

TUTORIALS = Path(__file__).resolve().parents[2] / "tutorials"
SHORTER = {
    "01-first-model.ipynb": {"max_epochs=400": "max_epochs=60"},
    "02-callbacks.ipynb": {'"max_epochs": 400': '"max_epochs": 65'},
    "05-rna-and-proteins.ipynb": {
        "model.train(max_epochs=60": "model.train(max_epochs=8",
        "missing.train(max_epochs=120": "missing.train(max_epochs=20",
    },
    "06-rna-and-chromatin.ipynb": {"max_epochs=200": "max_epochs=30"},
    "04-labels-topics-chromatin.ipynb": {
        "base.train(max_epochs=40": "base.train(max_epochs=6",
        "max_epochs=25": "max_epochs=8",
        "topics.train(max_epochs=160": "topics.train(max_epochs=20",
        "peaks.train(max_epochs=60": "peaks.train(max_epochs=10",
    },
    "07-doublets.ipynb": {
        "vae.train(max_epochs=60": "vae.train(max_epochs=8",
        "solo.train()": "solo.train(max_epochs=15)",
        "second_model.train(max_epochs=60": "second_model.train(max_epochs=5",
    },
}
"""Shorter trainings of the notebooks that take longest, in place of what they say."""


def write_shorter(name: str, folder: Path) -> Path:
    """Notebook with shorter trainings; it runs in the folder of the tutorials all the same."""
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    for long, short in SHORTER.get(name, {}).items():
        changed = [cell for cell in notebook.cells if long in cell.source]
        assert len(changed) == 1, long
        changed[0].source = changed[0].source.replace(long, short)
    nbformat.write(notebook, folder / name)
    return folder / name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in TUTORIALS.glob("*.ipynb")))
def test_a_tutorial_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "shared/data" in (TUTORIALS / name).read_text():
        request.getfixturevalue("shared_data")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("CELLVAE_TUTORIAL_CELLS", "10000")
    execute = runpy.run_path(str(TUTORIALS / "execute.py"))["execute"]
    notebook = execute(write_shorter(name, tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    texts = "".join(output.get("text", "") for output in outputs)
    assert "brought back" in texts
    assert "the same latent: False" not in texts


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_tutorial_is_kept_with_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2

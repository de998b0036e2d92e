"""Which files of scvi-tools are read and written, and by how much latents then differ.

Reads the models in tests/interop/data and in the folder of real ones; with --peer-python also
writes each model as scvi-tools does and lets scvi-tools find its latents. --write puts the table
into the page of the documentation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np

import cellvae
from cellvae.errors import CellvaeError, FileFormatError
from cellvae.model import MODELS

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "interop" / "data"
PAGE = ROOT / "docs" / "coming-from-scvi-tools.md"
BEGIN, END = "<!-- table of files: begin -->\n", "<!-- table of files: end -->\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model in a folder."""

    format: str
    kind: str
    what: str
    folder: Path
    answer: str | None = None


ONE = "0.15 to 1.5, one file"
THREE = "before 0.15, three files"


def cases(real: Path) -> list[Case]:
    """Every model that is looked at."""
    own = [
        Case(format=ONE, kind=kind, what=what, folder=DATA / name, answer=name)
        for kind, what, name in (
            ("SCVI", "batches", "scvi"),
            ("SCVI", "covariates, latent library, gene-batch dispersion, nb", "scvi_covariates"),
            ("SCVI", "size factors, Poisson, layer norm", "scvi_size"),
            ("SCVI", "learned batch vectors", "scvi_embedding"),
            ("SCVI", "minified cells", "minified"),
            ("SCVI", "minified cells with counts", "minified_with_counts"),
            ("SCANVI", "classifier of logits (1.1 and later)", "scanvi"),
            ("LinearSCVI", "batches", "linear"),
            ("PEAKVI", "batches", "peakvi"),
            ("AmortizedLDA", "three topics", "lda"),
        )
    ]
    old = [
        Case(format=THREE, kind=kind, what=what, folder=DATA / name, answer=name)
        for kind, what, name in (
            ("SCVI", "batches", "legacy"),
            ("SCVI", "covariates", "legacy_covariates"),
            ("SCANVI", "labels", "legacy_scanvi"),
        )
    ]
    others = [
        Case(format=ONE, kind=kind, what=what, folder=real / name)
        for kind, what, name in (
            ("SCVI", "a file of 0.15.0", "0150_scvi"),
            ("SCANVI", "classifier of probabilities (before 1.1)", "pre_logits_fix_scanvi"),
            ("TOTALVI", "a file of 0.15.0", "0150_totalvi"),
        )
        if (real / name).is_dir()
    ]
    return own + others + old


def figure(difference: float) -> str:
    """A difference as people read it."""
    return "0" if difference == 0 else f"{difference:.0e}"


def latents_of(model: Any, cells: Any) -> np.ndarray:
    """Latent of every cell; of the cells of the model where it has its own."""
    return np.asarray(model.get_latent_representation(None if model.adata is not None else cells))


def read(case: Case, cells: Any, answers: Any) -> tuple[Any, str, str]:
    """The model, whether it is read, and by how much its latent differs."""
    try:
        if case.kind not in MODELS:
            cellvae.load(case.folder)
        given = None if (case.folder / "adata.h5ad").is_file() else cells
        if case.answer is None:
            given = None
        model = MODELS[case.kind].load(case.folder, given)
    except FileFormatError as error:
        return (
            None,
            f"no: there is no {case.kind} here" if case.kind not in MODELS else str(error),
            "",
        )
    if case.answer not in answers:
        return model, "yes", "not compared"
    return model, "yes", figure(np.abs(latents_of(model, cells) - answers[case.answer]).max())


def written(model: Any, cells: Any, folder: Path, peer: str | None) -> tuple[str, str]:
    """Whether the model is written, and by how much the latent of scvi-tools then differs."""
    if model is None:
        return "", ""
    try:
        model.save(folder / "model", format="scvi-tools")
    except CellvaeError:
        return "no", ""
    if peer is None or model.adata is None or model.minified_data_type is not None:
        return "yes", "not run"
    (folder / "kinds.json").write_text(json.dumps({"model": type(model).__name__}))
    model.adata.write_h5ad(folder / "cells.h5ad")
    done = subprocess.run(
        [peer, ROOT / "tests" / "interop" / "peer.py", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return "yes", "it fails"
    return "yes", figure(np.abs(np.load(folder / "model.npy") - latents_of(model, cells)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=os.environ.get("CELLVAE_PEER_PYTHON"))
    parser.add_argument("--real", type=Path, default=ROOT / "../shared/data/scvi_models")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args()
    cells = anndata.read_h5ad(DATA / "cells.h5ad")
    lines = [
        "| files of scvi-tools | class | with | read | latent differs by | written | "
        "then differs in scvi-tools by |",
        "|---|---|---|---|---|---|---|",
    ]
    with np.load(DATA / "answers.npz") as answers:
        for case in cases(arguments.real):
            model, is_read, difference = read(case, cells, answers)
            with tempfile.TemporaryDirectory() as folder:
                is_written, then = written(model, cells, Path(folder), arguments.peer_python)
            row = (case.format, case.kind, case.what, is_read, difference, is_written, then)
            lines.append(f"| {' | '.join(row)} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if arguments.write:
        text = PAGE.read_text()
        begin, rest = text.split(BEGIN)
        PAGE.write_text(begin + BEGIN + table + END + rest.split(END)[1])


if __name__ == "__main__":
    main()

"""`cellvae report`: an HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellvae.errors import InvalidOptionError

MODEL_FILE = "model.json"


def report(
    run: Annotated[
        Path, typer.Argument(help="Folder of a saved model, or of a run that contains one.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; by default report.html in RUN.")
    ] = None,
    adata: Annotated[
        Path | None,
        typer.Option(
            "--adata",
            help="Cells (.h5ad, .h5mu) for the figures; by default those saved with the model.",
        ),
    ] = None,
    batch_key: Annotated[str | None, typer.Option("--batch-key", help="Column of batches.")] = None,
    labels_key: Annotated[
        str | None, typer.Option("--labels-key", help="Column of cell types.")
    ] = None,
    n_cells: Annotated[
        int, typer.Option("--n-cells", help="Maximum number of cells in the figures.")
    ] = 2_000,
) -> None:
    """Write a page about a run: curves, why it ended, options, data, latent space, checks, scores.

    One self-contained HTML file. Without cells it shows what is saved with the model.
    """
    from cellvae.data.files.h5mu import read_cells
    from cellvae.model.models import load

    folder = model_folder(run)
    cells = None if adata is None else read_cells(adata)
    model = load(folder, cells)
    target = run / "report.html" if out is None else out
    written = model.report(target, batch_key=batch_key, labels_key=labels_key, n_cells=n_cells)
    typer.echo(f"{written}")


def model_folder(run: Path) -> Path:
    """Folder of the model of a run: itself, `model/` in it, or the newest one anywhere below.

    Raises
    ------
    InvalidOptionError
        If there is no model.
    """
    for folder in (run, run / "model"):
        if (folder / MODEL_FILE).is_file():
            return folder
    found = sorted(run.rglob(MODEL_FILE), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InvalidOptionError(
            f"Expected a saved model in '{run}'; got none. Give the folder that model.save() "
            "wrote, or the run_dir of train()."
        )
    return found[-1].parent

"""Results of a job: latent, report, plots and the summary, each written as early as possible."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellvae.cli.doublets import CALL_COLUMN, ENCODER_FOLDER, SCORE_COLUMN, add_doublets
from cellvae.cli.model_flags import uses_labels
from cellvae.cli.record import JOB_FILE, JobRecord
from cellvae.core.files.output_files import replace_atomically
from cellvae.core.log import logger
from cellvae.data.mudata_adapter import is_mudata

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

MODEL_FOLDER = "model"
LATENT_FILE = "latent.h5ad"
LATENT_MUDATA_FILE = "latent.h5mu"
REPORT_FILE = "report.json"
CURVES_FILE = "training-curves.png"
UMAP_FILE = "umap.png"
COORDINATES_FILE = "umap.csv"
CHECKPOINT_FOLDER = "checkpoints"
STATE_FOLDER = "state"
PREDICTED_LABELS_KEY = "C_scANVI"
"""Column of `obs` for labels that SCANVI predicts, as scvi-tools' tutorials have it."""
RESULT_FILES = (
    MODEL_FOLDER,
    ENCODER_FOLDER,
    LATENT_FILE,
    LATENT_MUDATA_FILE,
    REPORT_FILE,
    CURVES_FILE,
    UMAP_FILE,
    COORDINATES_FILE,
    CHECKPOINT_FOLDER,
    STATE_FOLDER,
    JOB_FILE,
)
"""Names of all files and folders that a job writes."""
DPI = 150


def write_results(
    model: Any,
    adata: AnnData,
    record: JobRecord,
    *,
    colors: Sequence[str],
    strata: Sequence[str],
    umap: bool,
    seed: int,
    latent: NDArray[Any] | None = None,
) -> None:
    """Write the missing results of a trained model; plots come last and may fail.

    Parameters
    ----------
    model
        Trained model, which has been saved.
    adata
        Its cells. The latent representation is stored in `obsm`, predicted labels in `obs`.
    record
        Record of the job.
    colors
        Columns of `obs` that the UMAP is coloured by.
    strata
        Columns of `obs` that stratify the sample of cells in the UMAP.
    umap
        Whether a UMAP is drawn.
    seed
        Seed of the UMAP.
    latent
        What :func:`add_results` has returned; None to call it if a result needs it.
    """
    colors = list(colors)
    if uses_labels(type(model)):
        colors = [PREDICTED_LABELS_KEY, *colors]
    if type(model).encoder_class is not None:
        colors = [CALL_COLUMN, SCORE_COLUMN, *colors]
    needs_umap = umap and not (record.has(UMAP_FILE, colors) and record.has(COORDINATES_FILE))
    if needs_umap or not record.has(latent_file(adata)):
        latent = add_results(model, adata, record) if latent is None else latent
        write_latent(adata, record)
    if not record.has(REPORT_FILE):
        text = json.dumps(model.training_report.to_json(), indent=2) + "\n"
        with replace_atomically(record.out / REPORT_FILE) as temporary:
            temporary.write_text(text)
        record.add(REPORT_FILE)
    if not record.has(CURVES_FILE):
        draw_or_warn(record, CURVES_FILE, lambda: draw_curves(model, record.out / CURVES_FILE))
    if needs_umap:
        assert latent is not None
        points = latent
        draw_or_warn(
            record,
            UMAP_FILE,
            lambda: draw_umap(points, adata, record, colors=colors, strata=strata, seed=seed),
            colors,
        )


def add_results(model: Any, adata: AnnData, record: JobRecord) -> NDArray[Any]:
    """Compute latent representation, labels and tables of the cells, and store them there.

    Returns
    -------
    The latent, [cells, latent].
    """
    latent: NDArray[Any]
    if type(model).encoder_class is not None:
        latent = add_doublets(model, adata, record)
    else:
        latent = model.get_latent_representation()
        adata.obsm[model.latent_key] = latent
        for key, table in model.cell_tables().items():
            adata.obsm[key] = table
    if uses_labels(type(model)):
        adata.obs[PREDICTED_LABELS_KEY] = model.predict(soft=True).idxmax(axis=1).astype("category")
    return latent


def write_latent(adata: AnnData, record: JobRecord) -> None:
    """Write the cells with their results unless written before."""
    from cellvae.data.files.h5mu import write_cells

    name = latent_file(adata)
    if not record.has(name):
        with replace_atomically(record.out / name) as temporary:
            write_cells(adata, temporary, {})
        record.add(name)


def latent_file(cells: Any) -> str:
    """Name of the file of the cells with their latent representation."""
    return LATENT_MUDATA_FILE if is_mudata(cells) else LATENT_FILE


def draw_or_warn(
    record: JobRecord, name: str, draw: Callable[[], None], details: Any = None
) -> None:
    """Draw a plot; a failure is a warning, since all other results have been written."""
    try:
        draw()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning(
            "Warning: %s could not be drawn (%s). The other results are complete; the same "
            "command tries it again.",
            name,
            reason,
        )
    else:
        record.add(name, details)


def draw_curves(model: Any, path: Path) -> None:
    """Plot the training curves."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = model.history.plot(best_epoch=model.training_report.best_epoch)
    save_figure(figure, path)
    plt.close(figure)


def draw_umap(
    latent: NDArray[Any],
    adata: AnnData,
    record: JobRecord,
    *,
    colors: Sequence[str],
    strata: Sequence[str],
    seed: int,
) -> None:
    """Plot a UMAP of the latent representation, one panel per colour, and write its coordinates."""
    import pandas as pd

    from cellvae.plotting.layout import MAX_CELLS, compute_umap, umap

    shown = min(MAX_CELLS, adata.n_obs)
    logger.info("Computing the UMAP of %s cells ...", f"{shown:,}")
    columns = [adata.obs[name].to_numpy() for name in strata]
    result = compute_umap(latent, columns, seed=seed)
    names = adata.obs_names[result.cells]
    table = pd.DataFrame(result.coordinates, index=names, columns=["umap_1", "umap_2"])
    with replace_atomically(record.out / COORDINATES_FILE) as temporary:
        table.to_csv(temporary, index_label="cell")
    record.add(COORDINATES_FILE)
    figure = umap(latent, adata.obs, colors, strata=strata, result=result)
    save_figure(figure, record.out / UMAP_FILE)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG atomically."""
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def print_summary(model: Any, out: Path) -> None:
    """Print a summary of training, and the files of the results."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in model.training_report.summary_rows():
        table.add_row(f"[bold]{name}[/bold]", value)
    table.add_row("[bold]files[/bold]", f"{out}/")
    for path in sorted(p for p in out.iterdir() if not p.name.startswith(".")):
        table.add_row("", f"  {path.name}{'/' if path.is_dir() else ''}")
    console.print()
    console.print(table, highlight=False, soft_wrap=True)

"""`cellvae demo`: SCVI on real blood cells that are part of scanpy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellvae.cli.job import Job, check_output_folder, run_job
from cellvae.cli.results import RESULT_FILES, print_summary
from cellvae.errors import InvalidOptionError, quote_names

JOB = Job(
    config={"n_latent": 10, "gene_likelihood": "nb"},
    train={
        "max_epochs": 400,
        "early_stopping": True,
        "early_stopping_patience": 30,
        "plan_kwargs": {"n_epochs_kl_warmup": 50},
    },
    colors=("bulk_labels", "louvain"),
    resume=False,
)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path(
        "demo-output"
    ),
) -> None:
    """Train SCVI on 700 real blood cells (10x PBMC 68k, reduced) with early stopping.

    Writes the trained model, the cells with X_scVI, training curves and a UMAP. Takes a minute.
    """
    from cellvae.data import pbmc68k_reduced
    from cellvae.settings import settings

    # A second thread does not speed up steps of 128 cells x 765 genes, and slows them down on a
    # busy machine.
    settings.num_threads = 1
    check_output_folder(out, JOB, overwrite=True)
    others = sorted(path.name for path in out.glob("*") if path.name not in RESULT_FILES)
    if others:
        raise InvalidOptionError(
            f"'{out}' contains other files: {quote_names(others)}. Give another --out."
        )
    adata = pbmc68k_reduced()
    typer.echo(
        f"{adata.n_obs} cells x {adata.n_vars} genes, real counts from scanpy's pbmc68k_reduced"
    )
    model = run_job(adata, JOB, out, overwrite=True)
    print_summary(model, out)

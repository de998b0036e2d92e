"""`cellvae train`: the same job on any file of counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cellvae.cli.job import RUN_FOLDER, Job, check_out, run_job
from cellvae.cli.summary import print_summary
from cellvae.errors import InvalidOptionError

DATA, NETWORK, TRAINING, STOPPING, OUTPUT = (
    "Data",
    "Network",
    "Training",
    "Early stopping",
    "Output",
)


def flag(help_text: str, panel: str, *names: str) -> Any:
    """Option of the command, in a panel of its help."""
    return typer.Option(*names, help=help_text, rich_help_panel=panel, show_default=False)


def train(
    counts: Annotated[Path, typer.Argument(help="File of counts (.h5ad).", show_default=False)],
    out: Annotated[Path, flag("Folder for the results.", OUTPUT)],
    model: Annotated[
        str,
        flag("SCVI, SCANVI, LinearSCVI, PEAKVI, POISSONVI or AmortizedLDA (SCVI).", NETWORK),
    ] = "SCVI",
    layer: Annotated[str | None, flag("Layer with the raw counts (default: X).", DATA)] = None,
    batch_key: Annotated[str | None, flag("Column of obs with the batch.", DATA)] = None,
    labels_key: Annotated[str | None, flag("Column of obs with the label.", DATA)] = None,
    unlabeled_category: Annotated[
        str | None, flag("Label of cells whose label is not known, for SCANVI.", DATA)
    ] = None,
    size_factor_key: Annotated[str | None, flag("Column of obs with cell sizes.", DATA)] = None,
    categorical_covariate_keys: Annotated[
        list[str] | None, flag("Column of obs with a further category; may be repeated.", DATA)
    ] = None,
    continuous_covariate_keys: Annotated[
        list[str] | None, flag("Column of obs with a further number; may be repeated.", DATA)
    ] = None,
    n_latent: Annotated[int | None, flag("Latent dimensions (10).", NETWORK)] = None,
    n_hidden: Annotated[int | None, flag("Width of hidden layers (128).", NETWORK)] = None,
    n_layers: Annotated[int | None, flag("Hidden layers (1).", NETWORK)] = None,
    dropout_rate: Annotated[float | None, flag("Dropout in the encoder (0.1).", NETWORK)] = None,
    gene_likelihood: Annotated[
        str | None, flag("zinb, nb, poisson or normal (zinb).", NETWORK)
    ] = None,
    dispersion: Annotated[
        str | None, flag("gene, gene-batch, gene-label or gene-cell (gene).", NETWORK)
    ] = None,
    latent_distribution: Annotated[str | None, flag("normal or ln (normal).", NETWORK)] = None,
    use_observed_lib_size: Annotated[
        bool | None, flag("Take cell sizes from the counts, or learn them.", NETWORK)
    ] = None,
    encode_covariates: Annotated[
        bool | None, flag("Let the encoder read the covariates.", NETWORK)
    ] = None,
    deeply_inject_covariates: Annotated[
        bool | None, flag("Let every layer read the covariates.", NETWORK)
    ] = None,
    batch_representation: Annotated[
        str | None, flag("one-hot or embedding (one-hot).", NETWORK)
    ] = None,
    use_batch_norm: Annotated[
        str | None, flag("encoder, decoder, none or both (both).", NETWORK)
    ] = None,
    use_layer_norm: Annotated[
        str | None, flag("encoder, decoder, none or both (none).", NETWORK)
    ] = None,
    max_epochs: Annotated[
        int | None, flag("Epochs (400; fewer above 20,000 cells).", TRAINING)
    ] = None,
    batch_size: Annotated[int | None, flag("Cells per step (128).", TRAINING)] = None,
    train_size: Annotated[float | None, flag("Share of training cells (0.9).", TRAINING)] = None,
    validation_size: Annotated[
        float | None, flag("Share of validation cells (the rest).", TRAINING)
    ] = None,
    lr: Annotated[float | None, flag("Learning rate (0.001).", TRAINING)] = None,
    weight_decay: Annotated[float | None, flag("Weight decay (1e-6).", TRAINING)] = None,
    n_epochs_kl_warmup: Annotated[
        int | None, flag("Epochs of KL warm-up (400, or the whole run if shorter).", TRAINING)
    ] = None,
    reduce_lr_on_plateau: Annotated[
        bool | None, flag("Lower the learning rate when validation stops improving.", TRAINING)
    ] = None,
    accelerator: Annotated[str | None, flag("auto, cpu or gpu (auto).", TRAINING)] = None,
    devices: Annotated[str | None, flag("Which device (auto).", TRAINING)] = None,
    check_val_every_n_epoch: Annotated[
        int | None, flag("Epochs between validations.", TRAINING)
    ] = None,
    early_stopping: Annotated[
        bool | None, flag("Stop when validation no longer improves; keep the best model.", STOPPING)
    ] = None,
    early_stopping_monitor: Annotated[
        str | None, flag("Metric to follow (elbo_validation).", STOPPING)
    ] = None,
    early_stopping_patience: Annotated[
        int | None, flag("Checks without improvement (45).", STOPPING)
    ] = None,
    early_stopping_min_delta: Annotated[
        float | None, flag("Least improvement (0).", STOPPING)
    ] = None,
    early_stopping_mode: Annotated[str | None, flag("min, max or auto (auto).", STOPPING)] = None,
    early_stopping_warmup_epochs: Annotated[
        int | None, flag("First epochs not counted (0).", STOPPING)
    ] = None,
    on_nan: Annotated[
        str | None,
        flag("stop_restore, raise, skip_batch or ignore, at a loss that is not finite.", TRAINING),
    ] = None,
    resume: Annotated[
        bool, flag("Go on with a run into --out that was cut off; keep its state.", TRAINING)
    ] = False,
    seed: Annotated[int, flag("Seed of weights, split and noise (0).", TRAINING)] = 0,
    color: Annotated[
        list[str] | None, flag("Column of obs to colour the UMAP by; repeatable.", OUTPUT)
    ] = None,
    umap: Annotated[bool, flag("Draw a UMAP of the latent.", OUTPUT)] = True,
    overwrite: Annotated[bool, flag("Replace results in --out.", OUTPUT)] = False,
    enable_progress_bar: Annotated[bool | None, flag("Show a progress bar.", OUTPUT)] = None,
) -> None:
    """Train a model on a file of counts.

    Writes into --out: model/ (load it with cellvae.load), latent.h5ad (the cells with X_scVI),
    training-curves.png, umap.png and report.json. Every flag is the keyword of the same name.

    Example: cellvae train counts.h5ad --out run/ --batch-key batch --early-stopping
    """
    setup = given(
        {
            "layer": layer,
            "batch_key": batch_key,
            "labels_key": labels_key,
            "unlabeled_category": unlabeled_category,
            "size_factor_key": size_factor_key,
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
        }
    )
    config = given(
        {
            "n_latent": n_latent,
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "dropout_rate": dropout_rate,
            "gene_likelihood": gene_likelihood,
            "dispersion": dispersion,
            "latent_distribution": latent_distribution,
            "use_observed_lib_size": use_observed_lib_size,
            "encode_covariates": encode_covariates,
            "deeply_inject_covariates": deeply_inject_covariates,
            "batch_representation": batch_representation,
            "use_batch_norm": use_batch_norm,
            "use_layer_norm": use_layer_norm,
        }
    )
    plan = given(
        {
            "lr": lr,
            "weight_decay": weight_decay,
            "n_epochs_kl_warmup": n_epochs_kl_warmup,
            "reduce_lr_on_plateau": reduce_lr_on_plateau,
        }
    )
    words = given(
        {
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "train_size": train_size,
            "validation_size": validation_size,
            "accelerator": accelerator,
            "devices": devices,
            "check_val_every_n_epoch": check_val_every_n_epoch,
            "early_stopping": early_stopping,
            "early_stopping_monitor": early_stopping_monitor,
            "early_stopping_patience": early_stopping_patience,
            "early_stopping_min_delta": early_stopping_min_delta,
            "early_stopping_mode": early_stopping_mode,
            "early_stopping_warmup_epochs": early_stopping_warmup_epochs,
            "enable_progress_bar": enable_progress_bar,
            "on_nan": on_nan,
            "resume": "auto" if resume else None,
            "run_dir": out / RUN_FOLDER if resume else None,
            "plan_kwargs": plan or None,
        }
    )
    check_counts_file(counts)
    check_out(out, overwrite=overwrite)
    columns = [*(color or []), labels_key, batch_key]
    colors = tuple(dict.fromkeys(column for column in columns if column is not None))
    job = Job(
        model=model, setup=setup, config=config, train=words, colors=colors, umap=umap, seed=seed
    )
    from cellvae.data.h5ad import read_h5ad

    trained = run_job(read_h5ad(counts), job, out)
    print_summary(trained, out)


def given(words: Mapping[str, Any]) -> dict[str, Any]:
    """The words that have a value."""
    return {name: value for name, value in words.items() if value is not None}


def check_counts_file(counts: Path) -> None:
    """Check that there is a file to read.

    Raises
    ------
    FileNotFoundError
        If there is none.
    InvalidOptionError
        If it is of a kind that is not read.
    """
    if not counts.exists():
        raise FileNotFoundError(f"No such file: '{counts}'.")
    if counts.is_dir() or counts.suffix != ".h5ad":
        raise InvalidOptionError(f"Expected a file of counts that ends in .h5ad; got '{counts}'.")

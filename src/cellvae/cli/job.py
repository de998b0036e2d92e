"""One job: set up, train, save, draw; what `cellvae train` and `cellvae demo` do."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellvae.errors import (
    InvalidOptionError,
    TrainingError,
    UnknownKeyError,
    did_you_mean,
    named,
)
from cellvae.messages import logger

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.model import Model

LATENT_FILE = "latent.h5ad"
CURVES_FILE = "training-curves.png"
UMAP_FILE = "umap.png"
REPORT_FILE = "report.json"
MODEL_FOLDER = "model"
CHECKPOINT_FOLDER = "checkpoints"
RUN_FOLDER = "run"
TOLD = "C_scANVI"
"""Column of `obs` for labels that SCANVI tells, as scvi-tools' tutorials have it."""
RESULTS = (MODEL_FOLDER, CHECKPOINT_FOLDER, LATENT_FILE, CURVES_FILE, UMAP_FILE, REPORT_FILE)
"""Everything that a job writes into its folder."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done with the cells of one AnnData.

    Parameters
    ----------
    model
        Name of the model.
    setup, config, train
        Keywords of `setup_anndata`, of the model and of `train`.
    colors
        Columns of `adata.obs` that the UMAP is coloured by.
    umap
        Whether a UMAP is drawn.
    seed
        Seed of weights, split and noise.
    """

    model: str = "SCVI"
    setup: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    colors: Sequence[str] = ()
    umap: bool = True
    seed: int = 0


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check that results may be written.

    Raises
    ------
    InvalidOptionError
        If there are results of an earlier job that must not be replaced.
    """
    if out.exists() and not out.is_dir():
        raise InvalidOptionError(f"Expected a folder for --out; '{out}' is a file.")
    if (out / MODEL_FOLDER).exists() and not overwrite:
        raise InvalidOptionError(
            f"'{out}' holds a model already. Give --overwrite, or another --out."
        )


def run_job(adata: AnnData, job: Job, out: Path) -> Model:
    """Train a model and write model, latent, curves, UMAP and report into a folder."""
    from cellvae.model import MODELS
    from cellvae.settings import settings
    from cellvae.train import SaveCheckpoint

    if job.model not in MODELS:
        raise InvalidOptionError(
            f"Expected --model to be one of {', '.join(MODELS)}; got '{job.model}'."
            f"{did_you_mean(job.model, MODELS)}"
        )
    kind: Any = MODELS[job.model]
    settings.seed = job.seed
    check_setup(kind, job.setup)
    kind.setup_anndata(adata, **job.setup)
    check_colors(job.colors, adata)
    model = kind(adata, **job.config)
    out.mkdir(parents=True, exist_ok=True)
    words = dict(job.train)
    if words.get("early_stopping", any(word.startswith("early_stopping_") for word in words)):
        monitor = words.get("early_stopping_monitor", "elbo_validation")
        words["callbacks"] = [SaveCheckpoint(out / CHECKPOINT_FOLDER, monitor=monitor)]
    model.train(**words)
    if not model.is_trained:
        raise TrainingError(model.training_report.reason)
    write_results(model, adata, job, out)
    return model


def check_setup(kind: Any, words: Mapping[str, Any]) -> None:
    """Check that a model can be set up with these words.

    Raises
    ------
    InvalidOptionError
        If it does not know one of them, or needs another.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(kind.setup_anndata).parameters.items()
        if name != "adata"
    }
    unknown = [word for word in words if word not in parameters]
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in words
    ]
    if unknown:
        raise InvalidOptionError(f"{kind.__name__} has no {as_flag(unknown[0])}. Leave it out.")
    if missing:
        raise InvalidOptionError(f"{kind.__name__} needs {' and '.join(map(as_flag, missing))}.")


def as_flag(word: str) -> str:
    """Flag of a keyword."""
    return f"--{word.replace('_', '-')}"


def check_colors(colors: Sequence[str], adata: AnnData) -> None:
    """Check that the UMAP can be coloured as asked.

    Raises
    ------
    UnknownKeyError
        If a column is not there.
    """
    columns = [str(name) for name in adata.obs]
    for color in colors:
        if color not in columns:
            raise UnknownKeyError(
                f"Expected --color to be a column of obs; got '{color}'."
                f"{did_you_mean(color, columns)} The columns are {named(columns, 10) or 'none'}."
            )


def write_results(model: Any, adata: AnnData, job: Job, out: Path) -> None:
    """Write everything that a trained model gives."""
    import matplotlib as mpl

    from cellvae.model import SCANVI

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    key = latent_key(model)
    model.save(out / MODEL_FOLDER, overwrite=True)
    adata.obsm[key] = model.get_latent_representation()
    colors = list(job.colors)
    if isinstance(model, SCANVI):
        colors = [TOLD, *colors]
        adata.obs[TOLD] = model.predict(soft=True).idxmax(axis=1).astype("category")
    report = model.training_report
    figure = model.history.plot(best_epoch=report.best_epoch)
    figure.savefig(out / CURVES_FILE, dpi=150)
    plt.close(figure)
    if job.umap:
        draw_umap(adata, key, colors, out / UMAP_FILE, job.seed)
    replace(out / LATENT_FILE, adata)
    (out / REPORT_FILE).write_text(json.dumps(report.to_json(), indent=2) + "\n")


def latent_key(model: Any) -> str:
    """Name of the latent in `obsm`, as scvi-tools' tutorials have it: `X_scVI`."""
    known = {"SCVI": "X_scVI", "SCANVI": "X_scANVI"}
    return known.get(type(model).__name__, f"X_{type(model).__name__}")


def replace(path: Path, adata: AnnData) -> None:
    """Write an AnnData so that an older file stays whole until the new one is."""
    staged = path.with_name(f".{path.name}.part")
    adata.write_h5ad(staged)
    staged.replace(path)


def draw_umap(adata: AnnData, key: str, colors: list[str], path: Path, seed: int) -> None:
    """Compute a UMAP of the latent and draw it, one panel a colour."""
    import warnings

    import matplotlib.pyplot as plt
    import pandas as pd
    import scanpy as sc

    from cellvae.plotting import embedding

    logger.info("Computing the UMAP of %s cells ...", f"{adata.n_obs:,}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(adata, use_rep=key, random_state=seed)
        sc.tl.umap(adata, random_state=seed)
    panels = colors or [""]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(6.2 * len(panels), 4.6), constrained_layout=True, squeeze=False
    )
    for ax, color in zip(axes.flat, panels, strict=True):
        values = adata.obs[color] if color else pd.Series(["cells"] * adata.n_obs)
        embedding(adata.obsm["X_umap"], values, ax, title=color)
    figure.savefig(path, dpi=150)
    plt.close(figure)

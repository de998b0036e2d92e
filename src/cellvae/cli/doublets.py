"""Jobs of models that read the latent of another model, as SOLO does: that model is trained too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cellvae.core.log import logger
from cellvae.core.platform.launcher import process_rank
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.train.options.default_epochs import default_epochs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.cli.record import JobRecord

ENCODER_FOLDER = "scvi"
"""Folder of the model whose latent is read."""
SHARED = ("accelerator", "devices", "num_nodes", "enable_progress_bar", "simple_progress_bar")
"""Keyword arguments of `train` that both models get."""
CALL_COLUMN, SCORE_COLUMN = "doublet_call", "doublet_score"
"""Columns of `obs`, which the UMAP is coloured by."""
RATE_OPTION, EPOCHS_OPTION = "expected_rate", "scvi_max_epochs"
"""Options of a job: fraction of doublets among the cells, epochs of the model that is read."""


def class_of_cells(cls: Any) -> Any:
    """Class that cells are set up for: the model itself, or the one whose latent it reads."""
    return getattr(cls, "encoder_class", None) or cls


def check_expected_rate(rate: Any, adata: AnnData, batch_key: str | None) -> None:
    """Check a rate of doublets before anything is trained; None is one to be estimated.

    Raises
    ------
    InvalidOptionError
        If a rate is not between 0 and 1, or that of a batch is missing.
    """
    from cellvae.inference.doublets.doublet_calls import check_rates

    if rate is not None:
        batches = ["all"] if batch_key is None else adata.obs[batch_key].unique()
        check_rates(rate, np.asarray(batches, dtype=object))


def check_encoder_epochs(max_epochs: int | None) -> None:
    """Check the epochs of the model whose latent is read; None is their default.

    Raises
    ------
    InvalidOptionError
        If it is below 1.
    """
    if max_epochs is not None and max_epochs < 1:
        raise InvalidOptionError(f"Expected {EPOCHS_OPTION} to be at least 1; got {max_epochs}.")


def make_detector(
    cls: Any,
    adata: AnnData,
    config: Mapping[str, Any],
    train: Mapping[str, Any],
    record: JobRecord,
    max_epochs: int | None = None,
) -> Any:
    """Untrained model for the latent of a model that is trained first, unless it was before.

    Parameters
    ----------
    cls
        Class of the model.
    adata
        Cells, after setup.
    config
        Options of the model.
    train
        Keyword arguments of its `train`; device and progress bar are those of both models.
    record
        Record of the job.
    max_epochs
        Epochs of the model that is trained first; None for its default.

    Raises
    ------
    TrainingError
        If the model whose latent is read could not be trained.
    """
    encoder_class = class_of_cells(cls)
    folder = record.out / ENCODER_FOLDER
    if record.has(ENCODER_FOLDER):
        encoder = encoder_class.load(folder, adata)
    else:
        epochs = default_epochs(adata.n_obs) if max_epochs is None else max_epochs
        name = encoder_class.__name__
        logger.info("Training the %s whose latent is read, for %d epochs ...", name, epochs)
        encoder = encoder_class(adata)
        shared = {name: value for name, value in train.items() if name in SHARED}
        encoder.train(max_epochs=epochs, **shared)
        report = encoder.training_report
        if not encoder.is_trained or report.status == "interrupted":
            raise TrainingError(f"The {encoder_class.__name__} was not trained: {report.reason}")
        if process_rank() == 0:
            encoder.save(folder, overwrite=True)
            record.add(ENCODER_FOLDER)
    return cls.from_scvi_model(encoder, **config)


def add_doublets(model: Any, adata: AnnData, record: JobRecord) -> NDArray[Any]:
    """Store scores and calls of doublets in `obs`, and the latent that they come from in `obsm`.

    Returns
    -------
    The latent, [cells, latent].
    """
    encoder = class_of_cells(type(model)).load(record.out / ENCODER_FOLDER, adata)
    latent: NDArray[Any] = encoder.get_latent_representation()
    adata.obsm[encoder.latent_key] = latent
    calls = model.call_doublets(record.options.get(RATE_OPTION))
    for name in calls:
        adata.obs[name] = calls[name].array
    return latent

"""Prediction of the labels of cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.data.files.streaming_writer import check_new_file
from cellvae.data.setup.categories import as_array, as_index
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import (
    CellPass,
    inference_mode,
    iter_cell_batches,
    plan_pass,
)
from cellvae.inference.cell_results import (
    collect_matrix,
    names_of_cells,
    write_matrix,
    write_values,
)
from cellvae.inference.labels.attributions import (
    AttributionSums,
    check_captum_kwargs,
    integrated_gradients,
)
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.data.setup.categories import Scalar
    from cellvae.inference.protocols import CellChoice


class ClassifierModule(Protocol):
    """A network that classifies cells."""

    @property
    def gives_logits(self) -> bool:
        """Whether scores are logits rather than probabilities."""
        ...

    def classify(self, batch: Any, *, use_posterior_mean: bool = True) -> Tensor:
        """Score of each label for each cell of a batch, [cells, labels]."""
        ...


class ClassifierModel(DecoderModel, Protocol):
    """A trained model that predicts the labels of cells."""

    module: Any
    """Network that is a :class:`ClassifierModule`."""

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """Labels that it predicts, in the order of the scores."""
        ...


@overload
def predict(
    model: ClassifierModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    soft: Literal[False] = ...,
    batch_size: int | None = ...,
    use_posterior_mean: bool = ...,
    ig_interpretability: Literal[False] = ...,
    ig_args: None = ...,
) -> np.ndarray: ...


@overload
def predict(
    model: ClassifierModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    *,
    soft: Literal[True],
    batch_size: int | None = ...,
    use_posterior_mean: bool = ...,
    ig_interpretability: Literal[False] = ...,
    ig_args: None = ...,
) -> pd.DataFrame: ...


@overload
def predict(
    model: ClassifierModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    soft: bool = ...,
    batch_size: int | None = ...,
    use_posterior_mean: bool = ...,
    *,
    ig_interpretability: Literal[True],
    ig_args: Mapping[str, Any] | None = ...,
) -> tuple[np.ndarray | pd.DataFrame, pd.DataFrame]: ...


@overload
def predict(
    model: ClassifierModel,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    soft: bool = ...,
    batch_size: int | None = ...,
    use_posterior_mean: bool = ...,
    *,
    out: str | Path,
) -> Path: ...


@check_arguments(only=INTEGERS)
def predict(
    model: ClassifierModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    soft: bool = False,
    batch_size: int | None = None,
    use_posterior_mean: bool = True,
    ig_interpretability: bool = False,
    ig_args: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
) -> np.ndarray | pd.DataFrame | tuple[np.ndarray | pd.DataFrame, pd.DataFrame] | Path:
    """Most probable label of each cell, or the probability of each label.

    The category of unlabelled cells is never predicted.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Genes are matched by name; labels are
        not needed.
    indices
        Cells to use, by index, mask or name; None for all.
    soft
        Whether probabilities are returned.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    use_posterior_mean
        Whether labels are predicted from the mean of the latent posterior; otherwise from one
        random sample of it.
    ig_interpretability
        Whether the score of the predicted label of each cell is also attributed to its genes, by
        integrated gradients of the package captum (extra `interpretability`). This needs counts,
        and uses the mean of the latent posterior.
    ig_args
        Keyword arguments of `captum.attr.IntegratedGradients.attribute`, such as `n_steps` (50 by
        default) and `baselines` (no counts by default).
    out
        New file (`.h5ad` or `.zarr`) that the result is written to batch by batch. It holds an
        AnnData with the categorical column `obs["prediction"]`, or with `soft` with the
        probabilities as `X`. Not together with `ig_interpretability`.

    Returns
    -------
    Labels [cells] in the requested order, of the type that they have in `adata.obs`; with `soft`, a
    table [cells, labels] of probabilities with the names of cells and labels; with `out` the path
    of the file.

    With `ig_interpretability`, a tuple of those and a table of genes, the largest mean attribution
    first: `feature`, `feature_idx`, `modality` (`"None"`), `attribution_mean` and
    `attribution_std` over cells, and `cells`, the number of cells. The score is a logit, or a
    probability with `classifier_parameters={"logits": False}`; the attributions of a cell sum to
    the difference between its score and that of the baseline.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model, or attributions are
        requested and there are no counts.
    InvalidOptionError
        If no cells are requested, `batch_size` is below 1, captum is not installed, or the file
        exists.
    OutputError
        If the file cannot be written.
    UnknownOptionError
        If captum has no such argument.
    """
    if not ig_interpretability:
        if ig_args is not None:
            raise InvalidOptionError(
                f"Expected ig_interpretability=True together with ig_args; got {ig_args!r:.80} "
                "alone. Add it, or leave ig_args out."
            )
        path = None if out is None else check_new_file(out)
        cell_pass = plan_pass(model, adata, indices, batch_size, encoded=True)
        if path is not None:
            return write_predictions(model, adata, cell_pass, soft, use_posterior_mean, path)

        def scores_of(module: Any, batch: Any) -> Tensor:
            """Predictions for a batch."""
            return batch_predictions(module, batch, soft, use_posterior_mean)

        predictions = collect_matrix(model, cell_pass, scores_of)
        return as_labels(model, adata, indices, predictions, soft)
    if out is not None:
        raise InvalidOptionError(
            "Expected out without ig_interpretability, which returns a table of all genes too; got "
            "both. Ask twice."
        )
    captum_kwargs = check_captum_kwargs(ig_args)
    sums = AttributionSums(model.registration.n_genes)

    def iter_attributed_batches() -> Iterator[Any]:
        """Batches, whose attributions are added to the sums first."""
        for batch in iter_cell_batches(model, adata, indices, batch_size, counts=True):
            with inference_mode(model):
                labels = model.module.classify(batch).argmax(dim=-1)
            sums.add(integrated_gradients(model.module, batch, labels.clone(), captum_kwargs))
            yield batch

    predictions = predict_codes(model, iter_attributed_batches(), soft, use_posterior_mean)
    table = sums.table(model.registration.genes)
    return as_labels(model, adata, indices, predictions, soft), table


def predict_codes(
    model: ClassifierModel, batches: Iterator[Any], soft: bool, use_posterior_mean: bool
) -> np.ndarray:
    """Index of the most probable label of each cell, or with `soft` all probabilities."""
    parts = []
    for batch in batches:
        with inference_mode(model):
            parts.append(batch_predictions(model.module, batch, soft, use_posterior_mean).cpu())
    return torch.cat(parts).numpy()


def batch_predictions(
    module: ClassifierModule, batch: Any, soft: bool, use_posterior_mean: bool
) -> Tensor:
    """Index of the most probable label of each cell of a batch, or with `soft` probabilities."""
    scores = module.classify(batch, use_posterior_mean=use_posterior_mean)
    if not soft:
        return scores.argmax(dim=-1)
    return scores.softmax(dim=-1) if module.gives_logits else scores


def write_predictions(
    model: ClassifierModel,
    adata: AnnData | None,
    cell_pass: CellPass,
    soft: bool,
    use_posterior_mean: bool,
    path: Path,
) -> Path:
    """Write labels to `obs["prediction"]` of a file, or with `soft` probabilities to `X`."""

    def values_of(module: Any, batch: Any) -> dict[str, Tensor]:
        """Predictions for a batch."""
        return {"prediction": scores_of(module, batch)}

    def scores_of(module: Any, batch: Any) -> Tensor:
        """Rows of the matrix."""
        return batch_predictions(module, batch, soft, use_posterior_mean)

    labels = as_index(model.labels)
    if not soft:
        return write_values(
            model, adata, cell_pass, values_of, path, categories={"prediction": labels}
        )
    names = names_of_cells(model, adata, cell_pass.cells)
    return write_matrix(model, cell_pass, scores_of, path, names, map(str, labels))


def as_labels(
    model: ClassifierModel,
    adata: AnnData | None,
    indices: CellChoice,
    predictions: np.ndarray,
    soft: bool,
) -> np.ndarray | pd.DataFrame:
    """Names of predicted labels, or a table of probabilities with the names of cells and labels."""
    if not soft:
        labels: np.ndarray = as_array(model.labels)[predictions]
        return labels
    import pandas as pd

    names = names_of_cells(model, adata, model.cell_indices(adata, indices))
    return pd.DataFrame(predictions, index=names, columns=as_index(model.labels))

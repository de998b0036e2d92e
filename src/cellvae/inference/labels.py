"""Labels that a model tells cells to have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from cellvae.data.values import as_array, as_index
from cellvae.inference.pass_over import batches_of, evaluating
from cellvae.inference.protocols import HasDecoder

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.data.values import Scalar
    from cellvae.inference.protocols import CellChoice


class Classifies(Protocol):
    """A network that tells labels."""

    def classify(self, batch: Any, *, use_posterior_mean: bool = True) -> Tensor:
        """Score (logit) of each label for each cell of a batch, [cells, labels]."""
        ...


class HasClassifier(HasDecoder, Protocol):
    """A trained model that tells the labels of cells."""

    module: Any
    """Network that is `Classifies`."""

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """Labels that it can tell, in the order of its scores."""
        ...


@overload
def predict(
    model: HasClassifier,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    soft: Literal[False] = ...,
    batch_size: int | None = ...,
    use_posterior_mean: bool = ...,
) -> np.ndarray: ...


@overload
def predict(
    model: HasClassifier,
    adata: AnnData | None = ...,
    indices: CellChoice = ...,
    *,
    soft: Literal[True],
    batch_size: int | None = ...,
    use_posterior_mean: bool = ...,
) -> pd.DataFrame: ...


def predict(
    model: HasClassifier,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    soft: bool = False,
    batch_size: int | None = None,
    use_posterior_mean: bool = True,
) -> np.ndarray | pd.DataFrame:
    """Most probable label of each cell, or the probability of each label.

    The category of cells without a label is never among them.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those that the model was made with. Genes are matched by name; labels are
        not needed.
    indices
        Cells asked for, by number, mask or name; None for all.
    soft
        Whether probabilities are given.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    use_posterior_mean
        Whether labels are told from the mean of the latent posterior; otherwise from one draw,
        and so differently every time.

    Returns
    -------
    Labels [cells] in the order asked for, of the type that they have in `adata.obs`; with `soft`, a
    table [cells, labels] of probabilities with the names of cells and labels.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    InvalidOptionError
        If no cells are asked for, or `batch_size` is below 1.
    """
    batches = batches_of(model, adata, indices, batch_size, encoded=True)
    module: Classifies = model.module
    found = []
    with evaluating(model):
        for batch in batches:
            scores = module.classify(batch, use_posterior_mean=use_posterior_mean)
            found.append((scores.softmax(dim=-1) if soft else scores.argmax(dim=-1)).cpu())
    told = torch.cat(found).numpy()
    if not soft:
        labels: np.ndarray = as_array(model.labels)[told]
        return labels
    import pandas as pd

    cells = model.cells_of(adata, indices).numpy()
    whole = model.adata if adata is None else adata
    assert whole is not None
    return pd.DataFrame(told, index=whole.obs_names[cells], columns=as_index(model.labels))

"""Topics of a model: features of each topic, topics of each cell, and perplexity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.core.seeds import make_generator
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS, check_at_least_one
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_matrix, names_of_cells
from cellvae.inference.likelihood.elbo import get_elbo
from cellvae.inference.posterior_samples import first_observed
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

MAX_ELEMENTS = 2**22
"""Samples of topic proportions that are in memory at a time."""
MAX_NATS_PER_COUNT = 700.0
"""Largest cost whose exponential is finite in double precision; nats per count."""


class TopicModule(Protocol):
    """A network of topics with logistic normal posteriors."""

    topic_feature_posterior_mu: Tensor
    """Location of the posterior of each topic, [topics, features]."""

    @property
    def topic_feature_posterior_sigma(self) -> Tensor:
        """Standard deviation of the posterior of each topic, [topics, features]."""
        ...


class TopicModel(DecoderModel, Protocol):
    """A trained model of topics."""

    module: Any
    """Network that is a :class:`TopicModule`."""


@check_arguments(only=INTEGERS)
def get_feature_by_topic(model: TopicModel, n_samples: int = 5_000) -> pd.DataFrame:
    """Posterior mean of the proportion of each feature in each topic.

    Parameters
    ----------
    model
        Trained model of topics.
    n_samples
        Samples that the mean is estimated from; the same in every call.

    Returns
    -------
    DataFrame [features, topics] with the names of the features and columns `topic_0` and so on;
    every column sums to one.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    InvalidOptionError
        If `n_samples` is below 1.
    """
    import pandas as pd

    model.check_trained()
    check_at_least_one("n_samples", n_samples)
    topics: TopicModule = model.module
    with torch.no_grad():
        mean, std = topics.topic_feature_posterior_mu, topics.topic_feature_posterior_sigma
        generator = make_generator(0, "topics")
        total = torch.zeros_like(mean)
        for _ in range(n_samples):
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            total += torch.softmax(mean + std * noise, dim=-1)
    table = (total / n_samples).T.cpu().numpy()
    features = pd.Index(model.registration.genes)
    return pd.DataFrame(table, index=features, columns=topic_names(table.shape[1]))


@check_arguments(only=INTEGERS)
def get_topic_proportions(
    model: TopicModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
    n_samples: int = 5_000,
) -> pd.DataFrame:
    """Posterior mean of the proportion of each topic in each cell.

    Parameters
    ----------
    model
        Trained model of topics.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    n_samples
        Samples that the mean is estimated from; the same for every cell and in every call.

    Returns
    -------
    DataFrame [cells, topics] in the requested order, with the names of the cells and columns
    `topic_0` and so on; every row sums to one.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or `batch_size` or `n_samples` is below 1.
    """
    import pandas as pd

    check_at_least_one("n_samples", n_samples)
    cell_pass = plan_pass(model, adata, indices, batch_size)

    def proportions_of(module: Any, batch: Any) -> Tensor:
        """Proportions of the topics in each cell of a batch."""
        posterior = module.encode(batch).posterior
        return mean_proportions(posterior.loc, posterior.scale, n_samples)

    table = collect_matrix(model, cell_pass, proportions_of)
    cells = names_of_cells(model, adata, cell_pass.cells)
    return pd.DataFrame(table, index=cells, columns=topic_names(table.shape[1]))


def mean_proportions(mean: Tensor, std: Tensor, n_samples: int) -> Tensor:
    """Mean of the logistic normal distribution of each cell, [cells, topics]."""
    n_cells, n_topics = mean.shape
    generator = make_generator(0, "shares")
    total = torch.zeros_like(mean)
    step = max(1, MAX_ELEMENTS // (n_cells * n_topics))
    for begin in range(0, n_samples, step):
        n = min(step, n_samples - begin)
        noise = torch.randn(n, 1, n_topics, generator=generator).to(mean)
        total += torch.softmax(mean + std * noise, dim=-1).sum(dim=0)
    return total / n_samples


@check_arguments(only=INTEGERS)
def get_perplexity(
    model: TopicModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    batch_size: int | None = None,
) -> np.float64:
    """Upper bound on the perplexity: exp(-ELBO of the cells / number of their counts).

    Number of equally likely features that would be as hard to predict: at least 1, lower is better.
    A NumPy scalar.

    Parameters
    ----------
    model
        Trained model of topics.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features of `adata` are not those of the model.
    InvalidOptionError
        If no cells are requested, or they have no counts.
    """
    cell_pass = plan_pass(model, adata, indices, batch_size, counts=True)
    module = model.module
    batches = (batch for _, batch in cell_pass.iter_batches())
    total = sum(float(first_observed(module, batch).double().sum()) for batch in batches)
    if total <= 0:
        raise InvalidOptionError("Expected cells with counts for a perplexity; got none.")
    cost = -float(get_elbo(model, adata, indices, batch_size, return_mean=False).sum()) / total
    return np.float64(math.exp(cost) if cost < MAX_NATS_PER_COUNT else math.inf)


def topic_names(n_topics: int) -> list[str]:
    """Names of topics."""
    return [f"topic_{i}" for i in range(n_topics)]

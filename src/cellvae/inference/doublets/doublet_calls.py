"""Scores of doublets, and calls at an expected or estimated rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cellvae.core.options import check_arguments
from cellvae.data.doublets import COMPONENTS_KEY, DOUBLET, DOUBLET_NAMES, SINGLET
from cellvae.errors import DataMismatchError, InvalidOptionError
from cellvae.inference.cell_pass import plan_pass
from cellvae.inference.cell_results import collect_matrix
from cellvae.inference.doublets.doublet_rate import (
    MIN_CELLS,
    DoubletEstimate,
    estimate_rates,
)
from cellvae.inference.protocols import EncoderModel

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.data.setup.registration import Registration

CLASSES = (DOUBLET, SINGLET)
N_RATE_COMPONENTS = 12
"""Principal components that rates are estimated from; with more, trees recognise single cells."""
CHECKED = ("soft", "include_simulated_doublets", "return_logits", "seed")


class DoubletModel(EncoderModel, Protocol):
    """A trained classifier of cells and simulated doublets."""

    module: Any
    """Network with a method `logits` of features, [cells, classes]."""
    registration: Registration[Any]
    adata: AnnData | None
    """Features of cells and of simulated doublets."""


@check_arguments(only=CHECKED)
def predict_doublets(
    model: DoubletModel,
    soft: bool = True,
    include_simulated_doublets: bool = False,
    return_logits: bool = False,
) -> pd.DataFrame | pd.Series[str]:
    """Probability of each cell to be a simulated doublet, as the classifier was trained.

    It is a score: among the simulated doublets and the cells that the classifier was trained on
    doublets are far more frequent than among cells, so that more cells than there are doublets have
    a probability above one half. :meth:`call_doublets` corrects for that.

    Parameters
    ----------
    model
        Trained model.
    soft
        Whether probabilities are returned, or the more probable class.
    include_simulated_doublets
        Whether there are rows for simulated doublets too.
    return_logits
        Whether logits are returned in place of probabilities, if `soft`.

    Returns
    -------
    DataFrame [cells, classes] with the columns `doublet` and `singlet`; the class of each cell if
    not `soft`.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If the model was loaded without its features.
    """
    simulated = is_simulated(model)
    logits = torch.from_numpy(all_logits(model))
    scores = logits if return_logits else logits.softmax(dim=-1)
    adata = model.adata
    assert adata is not None
    table = pd.DataFrame(scores.numpy(), index=adata.obs_names, columns=[*CLASSES])
    if not include_simulated_doublets:
        table = table[~simulated]
    return table if soft else table.idxmax(axis=1)


@check_arguments(only=CHECKED)
def call_doublets(
    model: DoubletModel,
    expected_rate: float | Mapping[Any, float] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Doublets among the cells, as many as are expected, and the probability of each cell.

    In each batch the cells with the highest scores are called, as many as the rate says. The score
    is that of the mean of the log odds of the network, which was trained on all cells, and of
    gradient-boosted trees on principal components of the counts, which were not fitted to the cell:
    both together rank better than either. Of fewer than 30 cells or simulated doublets it is that
    of the network. The probability is that of Bayes' rule: the ratio of the density of doublets to
    that of cells, which the odds of the classifier are up to the numbers of both, times the rate
    (Elkan and Noto 2008).

    Parameters
    ----------
    model
        Trained model.
    expected_rate
        Fraction of doublets among the cells, one number or one for each batch; None for
        :meth:`get_doublet_rate`. For 10x Genomics about 0.008 for each 1,000 cells recovered.
    seed
        Seed of the trees.

    Returns
    -------
    DataFrame [cells, columns]: `doublet_score`, from 0 to 1, which ranks cells (:meth:`predict` has
    that of the network alone); `doublet_probability`; and `doublet_call`, `"doublet"` or
    `"singlet"`. The rate of each batch is in `attrs["doublet_rate"]`.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If the model was loaded without its features.
    InvalidOptionError
        If a rate is not between 0 and 1, or that of a batch is missing.
    InvalidDataError
        If there are too few cells to estimate a rate.
    """
    simulated = is_simulated(model)
    logits = all_logits(model)
    batches = batch_of_cells(model)
    codes, names = pd.factorize(batches, sort=True)
    log_odds = (logits[:, 0] - logits[:, 1])[~simulated].astype(np.float64)
    features = TreeFeatures.of_model(model)
    if expected_rate is None:
        rates = pd.Series(features.estimate_rates(codes, seed), index=names)
    else:
        rates = check_rates(expected_rate, names)
    if min(len(log_odds), simulated.sum()) >= MIN_CELLS:
        trees = features.estimate_log_odds(codes, rates.to_numpy(), seed)
        log_odds = (log_odds + trees) / 2
    probability = np.empty(len(log_odds))
    called = np.zeros(len(log_odds), dtype=bool)
    ratio = max(1, simulated.sum()) / len(log_odds)
    for batch, rate in rates.items():
        cells = np.flatnonzero(batches == batch)
        probability[cells] = np.minimum(1.0, rate * np.exp(log_odds[cells]) / ratio)
        n_called = round(rate * len(cells))
        called[cells[np.argsort(-log_odds[cells], kind="stable")[:n_called]]] = True
    assert model.adata is not None
    table = pd.DataFrame(
        {
            "doublet_score": 1 / (1 + np.exp(-log_odds)),
            "doublet_probability": probability,
            "doublet_call": pd.Categorical(np.where(called, DOUBLET, SINGLET), [*CLASSES]),
        },
        index=model.adata.obs_names[~simulated],
    )
    table.attrs["doublet_rate"] = {str(batch): float(rate) for batch, rate in rates.items()}
    return table


@check_arguments(only=CHECKED)
def get_doublet_rate(model: DoubletModel, seed: int = 0) -> pd.Series[float]:
    """Fraction of doublets in each batch, estimated from cells and simulated doublets.

    Cells are a mixture of single cells and doublets. The weight of the doublets is the lowest ratio
    of the fractions of cells and of simulated doublets that score above a threshold (Garg et al.
    2021, Mixture proportion estimation and PU learning, NeurIPS). Scores are those of trees on
    twelve principal components of the counts that were not fitted to the cell, and simulated
    doublets of cells that are doublets themselves are left out. Batches of fewer than 500 cells
    share one rate. Of 2,000 cells the standard error is one point.

    Doublets of two cells of one type are counted as far as simulated doublets of one type resemble
    them.

    Parameters
    ----------
    model
        Trained model.
    seed
        Seed of the estimate.

    Returns
    -------
    Rate by batch.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If the model was loaded without its features.
    InvalidDataError
        If there are fewer than 30 cells or simulated doublets.
    """
    model.check_trained()
    codes, batches = pd.factorize(batch_of_cells(model), sort=True)
    rates = TreeFeatures.of_model(model).estimate_rates(codes, seed)
    return pd.Series(rates, index=pd.Index(batches, name="batch"), name="doublet_rate")


class TreeFeatures(NamedTuple):
    """What gradient-boosted trees read of cells and simulated doublets."""

    for_rates: NDArray[np.float32]
    """Features from which rates are estimated, [cells and doublets, features]."""
    for_ranks: NDArray[np.float32]
    """Features by which cells are ranked, [cells and doublets, features]."""
    is_simulated: NDArray[np.bool_]
    parents: NDArray[np.int64]
    """Indices of the two cells of each simulated doublet, -1 where not known, [doublets, 2]."""

    @classmethod
    def of_model(cls, model: DoubletModel) -> Self:
        """Principal components of the counts, of which a few estimate rates, and log library size.

        By the latent, simulated doublets differ from those among the cells, which the encoder was
        trained on; it is taken where there are no components, as in files of scvi-tools.
        """
        simulated = is_simulated(model)
        assert model.adata is not None
        obs, names = model.adata.obs, DOUBLET_NAMES
        parents = np.full((int(simulated.sum()), 2), -1, dtype=np.int64)
        if {names.first, names.second} <= {*obs}:
            parents = obs.loc[simulated, [names.first, names.second]].to_numpy(dtype=np.int64)
        rows: Any = model.rows_for(None)
        latent = rows.take(torch.arange(len(rows))).features.numpy()
        components = model.adata.obsm.get(COMPONENTS_KEY)
        if components is None or not np.shape(components)[1]:
            return cls(latent, latent, simulated, parents)
        library = latent[:, -1:]
        few = np.hstack([components[:, :N_RATE_COMPONENTS], library])
        return cls(few, np.hstack([components, library]), simulated, parents)

    def estimate_rates(self, codes: NDArray[Any], seed: int) -> NDArray[np.float64]:
        """Rate of each batch, from the code of the batch of each cell."""
        return self.estimate(self.for_rates, codes, None, seed).rates

    def estimate_log_odds(
        self, codes: NDArray[Any], rates: NDArray[np.float64], seed: int
    ) -> NDArray[np.float64]:
        """Log odds of each cell to be a simulated doublet, with these rates of the batches."""
        return self.estimate(self.for_ranks, codes, rates, seed).log_odds

    def estimate(
        self,
        features: NDArray[np.float32],
        codes: NDArray[Any],
        given: NDArray[np.float64] | None,
        seed: int,
    ) -> DoubletEstimate:
        """Rates and log odds from these features."""
        return estimate_rates(
            features[~self.is_simulated],
            features[self.is_simulated],
            self.parents,
            codes.astype(np.int64),
            given=given,
            seed=seed,
        )


def all_logits(model: DoubletModel) -> NDArray[np.float32]:
    """Logits of all cells and simulated doublets of a model, [cells, classes]."""

    def logits_of(module: Any, batch: Any) -> torch.Tensor:
        """Logits of a batch."""
        logits: torch.Tensor = module.logits(batch.features)
        return logits

    return collect_matrix(model, plan_pass(model, None, None, None), logits_of)


def is_simulated(model: DoubletModel) -> NDArray[np.bool_]:
    """Whether each row of a model is a simulated doublet, [cells].

    Raises
    ------
    DataMismatchError
        If the model was loaded without its features.
    """
    if model.adata is None:
        raise DataMismatchError(
            "The model was loaded without the features of cells and simulated doublets. Save them "
            "with model.save(..., save_anndata=True), or make the model again from the scVI."
        )
    return np.asarray(model.adata.obs[model.registration.keys.labels_key] == DOUBLET)


def batch_of_cells(model: DoubletModel) -> NDArray[Any]:
    """Batch of each cell in which doublets were simulated, [cells]; one for all if not known."""
    assert model.adata is not None
    obs = model.adata.obs[~is_simulated(model)]
    if DOUBLET_NAMES.batch not in obs:
        return np.full(len(obs), "all", dtype=object)
    return obs[DOUBLET_NAMES.batch].to_numpy(dtype=object)


def check_rates(expected_rate: Any, batches: NDArray[Any]) -> pd.Series[float]:
    """Expected rate of each batch.

    Raises
    ------
    InvalidOptionError
        If one is not between 0 and 1, or missing.
    """
    if isinstance(expected_rate, Mapping):
        by_name = {str(batch): rate for batch, rate in expected_rate.items()}
        missing = [str(batch) for batch in batches if str(batch) not in by_name]
        if missing:
            raise InvalidOptionError(
                f"Expected a rate for every batch in expected_rate; none for {', '.join(missing)}."
            )
        rates = {batch: by_name[str(batch)] for batch in batches}
    else:
        rates = dict.fromkeys(batches, expected_rate)
    for batch, rate in rates.items():
        fits = isinstance(rate, int | float | np.number) and not isinstance(rate, bool)
        if not (fits and 0 <= rate <= 1):
            raise InvalidOptionError(
                f"Expected expected_rate to be a fraction from 0 to 1; got {rate!r} for {batch}."
            )
    return pd.Series(rates, dtype=float)

"""How each model of the table is set up on synthetic cells."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch.distributions import Normal

from cellvae.distributions import Poisson
from cellvae.model import MODELS, Model

N_CELLS, N_GENES, N_PROTEINS = 96, 16, 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model in a small size, on cells that have what it reads."""

    name: str
    setup: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arguments of abilities that cannot be called without."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `train`."""

    @property
    def label(self) -> str:
        """Name of the case."""
        return "-".join([self.name, *self.training])

    @property
    def kind(self) -> Any:
        return MODELS[self.name]

    def prepared(self) -> AnnData:
        """Cells that are set up."""
        adata = synthetic()
        self.kind.setup_anndata(adata, **self.setup)
        return adata

    def made(self, adata: AnnData | None = None) -> Any:
        """Model with the same weights every time."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            # One protein was not measured in one batch.
            warnings.filterwarnings("ignore", message="Expected counts of every protein")
            model = self.kind(self.prepared() if adata is None else adata, **self.config)
        if self.training:
            model.train = functools.partial(model.train, **self.training)
        return model


OF_COUNTS: Mapping[str, Mapping[str, Any]] = {
    "get_marginal_ll": {"n_mc_samples": 5},
    "differential_abundance": {"sample_key": "donor"},
    "differential_expression": {
        "idx1": "label == 'x'",
        "mode": "vanilla",
        "n_samples_overall": 20,
    },
    "get_importance_weights": {
        "adata": None,
        "indices": None,
        "qz": Normal(torch.zeros(N_CELLS, 3), torch.ones(N_CELLS, 3)),
        "px": Poisson(rate=torch.full((4, N_GENES), 10.0)),
        "zs": torch.zeros(4, 3),
        "n_mc_samples": 5,
    },
}
"""Arguments of the abilities of models of counts with three latent dimensions."""

CASES = (
    Case(
        name="SCVI",
        setup={
            "batch_key": "batch",
            "labels_key": "label",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        config={
            "n_hidden": 8,
            "n_latent": 3,
            "n_layers": 2,
            "use_observed_lib_size": False,
            "batch_representation": "embedding",
        },
        arguments=OF_COUNTS,
    ),
    Case(
        name="SCANVI",
        setup={
            "batch_key": "batch",
            "labels_key": "label",
            "unlabeled_category": "unknown",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        config={
            "n_hidden": 8,
            "n_latent": 3,
            "use_observed_lib_size": False,
            "dispersion": "gene-label",
            "encode_covariates": True,
            "batch_representation": "embedding",
        },
        arguments={**OF_COUNTS, "predict": {"soft": True}},
    ),
    Case(
        name="LinearSCVI",
        setup={
            "batch_key": "batch",
            "size_factor_key": "size",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        config={
            "n_hidden": 8,
            "n_latent": 3,
            "gene_likelihood": "zinb",
            "dispersion": "gene-cell",
            "batch_representation": "embedding",
            "bias": True,
        },
        arguments=OF_COUNTS,
    ),
    Case(
        name="PEAKVI",
        setup={
            "batch_key": "batch",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        config={"n_hidden": 8, "n_latent": 3, "encode_covariates": True},
        arguments={
            "get_marginal_ll": {"n_mc_samples": 5},
            "differential_accessibility": {"idx1": "label == 'x'", "n_samples_overall": 20},
        },
    ),
    Case(
        name="POISSONVI",
        setup={"batch_key": "batch", "categorical_covariate_keys": ["donor"]},
        config={"n_hidden": 8, "n_latent": 3, "batch_representation": "embedding"},
        arguments={
            **OF_COUNTS,
            "differential_accessibility": {"idx1": "label == 'x'", "n_samples_overall": 20},
        },
    ),
    Case(
        name="TOTALVI",
        setup={
            "protein_expression_obsm_key": "proteins",
            "batch_key": "batch",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        config={"n_hidden": 8, "n_latent": 3, "use_observed_lib_size": False},
        arguments={
            **OF_COUNTS,
            # Normalized means of raw counts are of genes only.
            "differential_expression": {
                **OF_COUNTS["differential_expression"],
                "all_stats": False,
            },
        },
    ),
    Case(
        name="MULTIVI",
        setup={
            "batch_key": "batch",
            "protein_expression_obsm_key": "proteins",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        config={"n_hidden": 8, "n_latent": 3, "modality_weights": "universal"},
        arguments={
            "get_marginal_ll": {"n_mc_samples": 5},
            "differential_abundance": {"sample_key": "donor"},
            "differential_expression": {"idx1": "label == 'x'", "n_samples_overall": 20},
            "differential_accessibility": {"idx1": "label == 'x'", "n_samples_overall": 20},
        },
    ),
    Case(
        name="TOTALANVI",
        setup={
            "protein_expression_obsm_key": "all_proteins",
            "batch_key": "batch",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
            "labels_key": "label",
            "unlabeled_category": "unknown",
        },
        config={
            "n_hidden": 8,
            "n_latent": 3,
            "use_observed_lib_size": False,
            "gene_dispersion": "gene-label",
            "protein_dispersion": "protein-batch",
        },
        arguments={
            **OF_COUNTS,
            "differential_expression": {
                **OF_COUNTS["differential_expression"],
                "all_stats": False,
            },
            "predict": {"soft": True},
        },
    ),
    Case(
        name="AmortizedLDA",
        setup={"layer": "words"},
        config={"n_hidden": 8, "n_topics": 3},
    ),
)
# Everything that holds for a gradient step holds for an adversarial one too.
CASES += (
    replace(CASES[0], training={"adversarial_classifier": True}),
    Case(
        name="SOLO",
        setup={"labels_key": "class", "layer": "words"},
        config={"n_hidden": 8, "n_layers": 2},
    ),
)


def synthetic() -> AnnData:
    """Counts of two kinds of cells that differ strongly, so that there is something to learn."""
    random = np.random.default_rng(0)
    kind = np.arange(N_CELLS) % 2
    means = random.gamma(2.0, 5.0, (2, N_GENES))
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(random.choice(["b0", "b1", "b2"], N_CELLS)),
            "label": pd.Categorical(np.array(["x", "y"])[kind]),
            "donor": random.choice(["d0", "d1"], N_CELLS),
            "age": random.normal(size=N_CELLS),
            "size": np.full(N_CELLS, 1.0),
            "class": pd.Categorical(np.array(["doublet", "singlet"])[kind]),
        },
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    # Genes and regions take turns, so that order matters.
    var["feature_types"] = ["Gene Expression", "Peaks"] * (N_GENES // 2)
    adata = AnnData(random.poisson(means[kind]).astype(np.float32), obs=obs, var=var)
    adata.layers["words"] = adata.X.copy()
    proteins = random.poisson(random.gamma(2.0, 8.0, (2, N_PROTEINS))[kind])
    names = [f"protein{i}" for i in range(N_PROTEINS)]
    adata.obsm["all_proteins"] = pd.DataFrame(proteins, index=obs.index, columns=names)
    # One protein was not measured in one batch, so that TOTALVI has an adversary.
    adata.obsm["proteins"] = adata.obsm["all_proteins"].copy()
    adata.obsm["proteins"].loc[(obs["batch"] == "b2").to_numpy(), names[0]] = 0
    return adata


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.label)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="session")
def cases() -> tuple[Case, ...]:
    return CASES


@pytest.fixture(scope="session")
def train() -> Callable[..., None]:
    """Train quickly and without a word."""

    def run(model: Model, **kwargs: Any) -> None:
        given = {"max_epochs": 2, "batch_size": 32, "accelerator": "cpu", "seed": 0}
        given |= {"early_stopping": False} | kwargs
        model.train(enable_progress_bar=False, **given)

    return run


@pytest.fixture(scope="session")
def trained(case: Case, train: Callable[..., None]) -> Any:
    """Trained model that tests only read."""
    model = case.made()
    # The moving average of SOLO needs more steps than these.
    kwargs = {"max_epochs": 8, "check_val_every_n_epoch": 1, "ema_decay": None}
    train(model, **kwargs, plan_kwargs={"lr": 0.01})
    return model

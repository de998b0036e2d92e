"""Amortized latent Dirichlet allocation: an encoder infers the topics of a cell (Blei 2003)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.nn import functional

from cellvae.contracts import MIN_LIBRARY_SIZE, CountLatent, GenerativeModule, Loss
from cellvae.core.options import Options, option
from cellvae.data import Registration
from cellvae.data.setup.fields import Counts, Field
from cellvae.data.setup.keys import Keys
from cellvae.data.storage.memory import ColumnRows
from cellvae.distributions.multinomial import BagOfWords
from cellvae.errors import InvalidOptionError
from cellvae.estimator.model import Model
from cellvae.inference import (
    get_elbo,
    get_feature_by_topic,
    get_perplexity,
    get_reconstruction_error,
    get_topic_proportions,
)
from cellvae.model.components.pyro_elbo import pyro_elbo_loss
from cellvae.nn import Encoder
from cellvae.train.options.default_epochs import default_epochs

if TYPE_CHECKING:
    from cellvae.data.setup.minified import MinifiedType

MAX_DEFAULT_EPOCHS = 1_000


class LDABatch(NamedTuple):
    """Counts of a batch of cells."""

    counts: Float[Tensor, "cells features"]


@dataclass(frozen=True, kw_only=True)
class LDAKeys(Keys):
    """Keyword arguments of :meth:`AmortizedLDA.setup_anndata`.

    Parameters
    ----------
    layer
        Layer that holds the raw counts; None for `X`.
    """

    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class AmortizedLDAConfig(Options):
    """Options of :class:`AmortizedLDA`.

    Parameters
    ----------
    n_topics
        Number of topics.
    n_hidden
        Width of the hidden layer of the encoder.
    cell_topic_prior
        Concentration of the Dirichlet prior of the topics of a cell: one number for all topics or
        one for each; None for 1 / n_topics.
    topic_feature_prior
        Concentration of the Dirichlet prior of the features of a topic: one number for all
        features or one for each; None for 1 / n_topics.
    """

    n_topics: int = option(20, at_least=2, at_most=65_536)
    n_hidden: int = option(128, at_least=1, at_most=65_536)
    cell_topic_prior: float | tuple[float, ...] | None = None
    topic_feature_prior: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cell_topic_prior", "topic_feature_prior"):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            if any(not isinstance(n, int | float) or not 0 < n < float("inf") for n in numbers):
                raise InvalidOptionError(f"Expected {name} to be above 0; got {value}.")


def logistic_normal(
    concentration: Float[Tensor, " parts"],
) -> tuple[Float[Tensor, " parts"], Float[Tensor, " parts"]]:
    """Mean and standard deviation of the logistic normal that approximates a Dirichlet.

    The Laplace approximation in the softmax basis (Srivastava and Sutton 2017, equation 3; MacKay
    1998); the standard deviations are the square roots of its diagonal.
    """
    n = len(concentration)
    logs = concentration.log()
    variance = (1 - 2 / n) / concentration + (1 / concentration).sum() / n**2
    return logs - logs.sum() / n, variance.sqrt()


class AmortizedLDAModule(GenerativeModule[LDABatch]):
    """Network of latent Dirichlet allocation, written in Pyro.

    All parameters are torch parameters of the module: Pyro's parameter store is not used, so that
    models are independent of each other. As in scvi-tools' training, the encoder's second output is
    the standard deviation of the posterior.
    """

    latent_is_gaussian = False
    cuda_graph_safe = False
    cell_topic_prior_mu: Tensor
    cell_topic_prior_sigma: Tensor
    topic_feature_prior_mu: Tensor
    topic_feature_prior_sigma: Tensor

    def __init__(self, n_features: int, config: AmortizedLDAConfig) -> None:
        super().__init__()
        self.n_topics = config.n_topics
        cell_prior = prior_concentration(config, "cell_topic_prior", config.n_topics)
        topic_prior = prior_concentration(config, "topic_feature_prior", n_features)
        for name, prior in (("cell_topic", cell_prior), ("topic_feature", topic_prior)):
            mean, std = logistic_normal(prior)
            self.register_buffer(f"{name}_prior_mu", mean)
            self.register_buffer(f"{name}_prior_sigma", std)
        self.encoder = Encoder(n_features, config.n_topics, n_hidden=config.n_hidden)
        mean, std = logistic_normal(torch.ones(n_features))
        self.topic_feature_posterior_mu = nn.Parameter(mean.repeat(config.n_topics, 1))
        self.unconstrained_topic_feature_posterior_sigma = nn.Parameter(
            std.repeat(config.n_topics, 1)
        )

    @property
    def topic_feature_posterior_sigma(self) -> Float[Tensor, "topics features"]:
        """Standard deviation of the posterior of each topic, before the softmax."""
        return functional.softplus(self.unconstrained_topic_feature_posterior_sigma)

    def prior(self, batch: LDABatch) -> Normal:
        """p(topics of a cell) before the softmax."""
        return Normal(self.cell_topic_prior_mu, self.cell_topic_prior_sigma, validate_args=False)

    def transform(self, z: Tensor) -> Tensor:
        """Proportions of the topics, from the logits of the posterior."""
        return functional.softmax(z, dim=-1)

    def encode_topics(self, batch: LDABatch) -> Normal:
        """q(topics of each cell) before the softmax."""
        encoded = self.encoder(batch.counts)
        return Normal(encoded.loc, encoded.variance, validate_args=False)

    def encode(self, batch: LDABatch) -> CountLatent:
        """Posterior of the topics of each cell, and a sample of their proportions."""
        posterior = self.encode_topics(batch)
        library_size = batch.counts.sum(dim=-1, keepdim=True).clamp(min=MIN_LIBRARY_SIZE)
        return CountLatent(posterior, self.transform(posterior.rsample()), library_size.log())

    def decode(self, latent: CountLatent, batch: LDABatch) -> dict[str, Distribution]:
        """Distribution of the counts, with the features of each topic at their posterior mode."""
        topics = functional.softmax(self.topic_feature_posterior_mu, dim=-1)
        return {"rna": BagOfWords(latent.sample @ topics, latent.log_library.exp())}

    def model(self, batch: LDABatch, kl_weight: Tensor) -> None:
        """Joint distribution of topics and counts: Pyro's model."""
        import pyro
        from pyro import distributions as pd
        from pyro import poutine

        with pyro.plate("topics", self.n_topics), poutine.scale(scale=kl_weight):
            topic_features = pd.Normal(self.topic_feature_prior_mu, self.topic_feature_prior_sigma)
            features = pyro.sample("topic_features", topic_features.to_event(1))
        with pyro.plate("cells", self.n_cells, subsample=batch.counts):
            with poutine.scale(scale=kl_weight):
                cell_topics = pd.Normal(self.cell_topic_prior_mu, self.cell_topic_prior_sigma)
                topics = pyro.sample("cell_topics", cell_topics.to_event(1))
            proportions = self.transform(topics) @ features.softmax(dim=-1)
            likelihood = BagOfWords(proportions, batch.counts.sum(dim=-1, keepdim=True))
            pyro.factor("counts", likelihood.log_prob(batch.counts).sum(dim=-1))

    def guide(self, batch: LDABatch, kl_weight: Tensor) -> None:
        """Approximate posterior of topics: Pyro's guide."""
        import pyro
        from pyro import distributions as pd
        from pyro import poutine

        with pyro.plate("topics", self.n_topics), poutine.scale(scale=kl_weight):
            mean, std = self.topic_feature_posterior_mu, self.topic_feature_posterior_sigma
            pyro.sample("topic_features", pd.Normal(mean, std).to_event(1))
        with (
            pyro.plate("cells", self.n_cells, subsample=batch.counts),
            poutine.scale(scale=kl_weight),
        ):
            posterior = self.encode_topics(batch)
            pyro.sample("cell_topics", pd.Normal(posterior.loc, posterior.scale).to_event(1))

    def loss(self, batch: LDABatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO, by Pyro's differentiable loss with closed-form KL divergences."""
        return pyro_elbo_loss(self.model, self.guide, batch, kl_weight, n_cells=self.n_cells)


def prior_concentration(config: AmortizedLDAConfig, name: str, n: int) -> Float[Tensor, " parts"]:
    """Concentration of a Dirichlet prior with `n` components.

    Raises
    ------
    InvalidOptionError
        If the option is a sequence of another length.
    """
    value = getattr(config, name)
    if isinstance(value, tuple) and len(value) != n:
        raise InvalidOptionError(f"Expected {name} to be {n:,} numbers; got {len(value):,}.")
    given = 1 / config.n_topics if value is None else value
    return torch.tensor(given, dtype=torch.float32).expand(n).clone()


@final
class AmortizedLDA(Model):
    """Topics of counts: latent Dirichlet allocation with an encoder, fitted with Pyro.

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`.
    **config
        Options of the model: see :class:`AmortizedLDAConfig`.

    Raises
    ------
    NotSetUpError
        If `adata` has not been set up.
    UnknownOptionError, InvalidOptionError
        If an option is misspelt or has an invalid value.

    Notes
    -----
    `get_elbo` is in nats per cell, as for every model; scvi-tools gives the sum over cells, with
    the other sign. The KL divergence of the topics from their prior is divided among the requested
    cells.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> cellvae.model.AmortizedLDA.setup_anndata(adata)
    >>> model = cellvae.model.AmortizedLDA(adata, n_topics=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_feature_by_topic().shape
    (100, 5)

    References
    ----------
    Blei, Ng, Jordan (2003): Latent Dirichlet allocation. Journal of Machine Learning Research 3,
    993. Srivastava, Sutton (2017): Autoencoding variational inference for topic models. ICLR.
    """

    Config: ClassVar[type[AmortizedLDAConfig]] = AmortizedLDAConfig
    Keys: ClassVar[type[LDAKeys]] = LDAKeys
    Batch: ClassVar[type[LDABatch]] = LDABatch
    config: AmortizedLDAConfig
    module: AmortizedLDAModule
    missing_methods: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "differential_abundance": (
                "it is there for models of counts; the density of any latent can be estimated "
                "from it"
            ),
            "get_normalized_expression": "use get_latent_representation and get_feature_by_topic",
        }
    )

    get_latent_representation = get_topic_proportions
    get_feature_by_topic = get_feature_by_topic
    get_elbo = get_elbo
    get_reconstruction_error = get_reconstruction_error
    get_perplexity = get_perplexity

    @staticmethod
    def fields(keys: LDAKeys) -> tuple[Field, ...]:
        """Fields that the model reads from an AnnData."""
        return (Counts("counts", keys.layer),)

    @staticmethod
    def build(registration: Registration, config: AmortizedLDAConfig) -> AmortizedLDAModule:
        """Network for these data and options."""
        return AmortizedLDAModule(registration.n_genes, config)

    @staticmethod
    def init_from_data(module: AmortizedLDAModule, rows: ColumnRows[LDABatch]) -> None:
        """Set the number of cells, until training sets the number of training cells."""
        module.n_cells = len(rows)

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Adam with torch's defaults, and up to 1,000 epochs."""
        plan: dict[str, Any] = {"eps": 1e-8, "weight_decay": 0.0}
        if self.rows is None or kwargs.get("max_epochs") is not None:
            return {"plan_kwargs": plan}
        return {
            "plan_kwargs": plan,
            "max_epochs": default_epochs(len(self.rows), MAX_DEFAULT_EPOCHS),
        }

    def minify_adata(
        self,
        minified_data_type: MinifiedType = "latent_posterior_parameters",
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
        silent: bool = False,
    ) -> None:
        """Not supported: results of topics are computed from counts, or are small tables to keep.

        Raises
        ------
        InvalidOptionError
            Always.
        """
        raise InvalidOptionError(
            "AmortizedLDA cannot be minified. Keep model.get_latent_representation() instead."
        )

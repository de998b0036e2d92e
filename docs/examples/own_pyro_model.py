"""A model of your own in Pyro: programmes of genes, each cell a sum of them."""

from dataclasses import dataclass
from typing import NamedTuple

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Normal

from cellvae.contracts import CountLatent, GenerativeModule, Loss
from cellvae.core.options import Options, option
from cellvae.data.setup.fields import Counts
from cellvae.data.setup.keys import Keys
from cellvae.distributions import Poisson
from cellvae.inference import get_elbo, get_latent_representation
from cellvae.model import Model, register
from cellvae.model.components.pyro_elbo import pyro_elbo_loss
from cellvae.nn import Encoder


class Batch(NamedTuple):
    """What the network reads of a batch of cells."""

    counts: Tensor  # [cells, genes]


@dataclass(frozen=True, kw_only=True)
class ProgrammesKeys(Keys):
    """Arguments of `setup_anndata`."""

    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProgrammesConfig(Options):
    """Options of the model."""

    n_programmes: int = option(5, at_least=1)


class ProgrammesModule(GenerativeModule[Batch]):
    """A model and a guide; parameters are ordinary ones of torch, so that they are saved."""

    def __init__(self, n_genes: int, config: ProgrammesConfig) -> None:
        super().__init__()
        n = config.n_programmes
        self.encoder = Encoder(n_genes, n)
        self.mean = nn.Parameter(0.1 * torch.randn(n, n_genes))
        self.log_deviation = nn.Parameter(torch.full((n, n_genes), -2.0))

    def shares(self, weights: Tensor, programmes: Tensor) -> Tensor:
        return (weights @ programmes).softmax(dim=-1)

    def model(self, counts: Tensor, kl_weight: Tensor) -> None:
        n = len(self.mean)
        with pyro.plate("programmes", n), poutine.scale(scale=kl_weight):
            programmes = pyro.sample("programme", dist.Normal(0 * self.mean, 1.0).to_event(1))
        with pyro.plate("cells", self.n_cells, subsample=counts):
            with poutine.scale(scale=kl_weight):
                prior = dist.Normal(counts.new_zeros(n), 1.0).to_event(1)
                weights = pyro.sample("weights", prior)
            rate = counts.sum(dim=-1, keepdim=True) * self.shares(weights, programmes)
            pyro.sample("counts", dist.Poisson(rate).to_event(1), obs=counts)

    def guide(self, counts: Tensor, kl_weight: Tensor) -> None:
        with pyro.plate("programmes", len(self.mean)), poutine.scale(scale=kl_weight):
            deviation = self.log_deviation.exp()
            pyro.sample("programme", dist.Normal(self.mean, deviation).to_event(1))
        with pyro.plate("cells", self.n_cells, subsample=counts), poutine.scale(scale=kl_weight):
            told = self.encoder(counts.log1p())
            pyro.sample("weights", dist.Normal(told.loc, told.scale).to_event(1))

    def encode(self, batch: Batch) -> CountLatent:
        posterior: Normal = self.encoder(batch.counts.log1p())
        size = batch.counts.sum(-1, keepdim=True)
        return CountLatent(posterior, posterior.rsample(), size.log())

    def decode(self, latent: CountLatent, batch: Batch) -> dict[str, Poisson]:
        scale = self.shares(latent.sample, self.mean)
        return {"rna": Poisson(latent.log_library.exp() * scale, scale=scale)}

    def loss(self, batch: Batch, kl_weight: Tensor) -> Loss:
        return pyro_elbo_loss(self.model, self.guide, batch.counts, kl_weight, n_cells=self.n_cells)


@register
class Programmes(Model):
    """Programmes of genes."""

    Config, Keys, Batch = ProgrammesConfig, ProgrammesKeys, Batch

    get_latent_representation = get_latent_representation
    get_elbo = get_elbo

    @staticmethod
    def fields(keys):
        return (Counts("counts", keys.layer),)

    @staticmethod
    def build(registration, config):
        return ProgrammesModule(registration.n_genes, config)

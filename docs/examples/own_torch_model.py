"""A model of your own in plain torch: a variational autoencoder of Poisson counts."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from cellvae.contracts import CountLatent, GenerativeModule, Loss
from cellvae.core.options import Options, option
from cellvae.data.setup.fields import Category, Counts
from cellvae.data.setup.keys import Keys
from cellvae.distributions import Poisson
from cellvae.inference import get_elbo, get_latent_representation, get_normalized_expression
from cellvae.model import Model, register
from cellvae.nn import Encoder, FCLayers


class Batch(NamedTuple):
    """What the network reads of a batch of cells."""

    counts: Tensor  # [cells, genes]
    batch: Tensor  # [cells, 1]


@dataclass(frozen=True, kw_only=True)
class PoissonVAEKeys(Keys):
    """Arguments of `setup_anndata`, which is made of them.

    Parameters
    ----------
    layer
        Layer that holds the raw counts; None for `X`.
    batch_key
        Column of `adata.obs` with the batch of each cell.
    """

    layer: str | None = None
    batch_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class PoissonVAEConfig(Options):
    """Options; their types and ranges are checked when the model is made."""

    n_latent: int = option(8, at_least=1)
    n_hidden: int = option(64, at_least=1)
    beta: float = option(1.0, above=0)


class PoissonVAEModule(GenerativeModule[Batch]):
    """The mathematics: tensors in, distributions and a loss out."""

    def __init__(self, n_genes: int, n_batch: int, config: PoissonVAEConfig) -> None:
        super().__init__()
        self.beta = config.beta
        self.encoder = Encoder(n_genes, config.n_latent, n_hidden=config.n_hidden)
        self.decoder = FCLayers(config.n_latent, config.n_hidden, (n_batch,))
        self.shares = nn.Linear(config.n_hidden, n_genes)

    def encode(self, batch: Batch) -> CountLatent:
        posterior = self.encoder(batch.counts.log1p())
        size = batch.counts.sum(dim=-1, keepdim=True)
        return CountLatent(posterior, posterior.rsample(), size.log())

    def decode(self, latent: CountLatent, batch: Batch) -> dict[str, Poisson]:
        hidden = self.decoder(latent.sample, [batch.batch])
        scale = self.shares(hidden).softmax(dim=-1)
        return {"rna": Poisson(latent.log_library.exp() * scale, scale=scale)}

    def loss(self, batch: Batch, kl_weight: Tensor) -> Loss:
        latent = self.encode(batch)
        reconstruction = -self.decode(latent, batch)["rna"].log_prob(batch.counts).sum(dim=-1)
        standard = Normal(torch.zeros_like(latent.posterior.loc), 1.0)
        kl = kl_divergence(latent.posterior, standard).sum(dim=-1)
        return Loss(
            loss=(reconstruction + self.beta * kl_weight * kl).mean(),
            reconstruction={"reconstruction_loss": reconstruction},
            kl_local={"kl_local": kl},
            kl_global=torch.zeros_like(kl).sum(),
        )


@register
class PoissonVAE(Model):
    """What users hold in their hands; the abilities are a list of functions."""

    Config, Keys, Batch = PoissonVAEConfig, PoissonVAEKeys, Batch

    get_latent_representation = get_latent_representation
    get_normalized_expression = get_normalized_expression
    get_elbo = get_elbo

    @staticmethod
    def fields(keys):
        return Counts("counts", keys.layer), Category("batch", keys.batch_key)

    @staticmethod
    def build(registration, config):
        return PoissonVAEModule(registration.n_genes, registration.n_categories("batch"), config)

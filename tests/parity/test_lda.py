"""AmortizedLDA beside scvi-tools' numbers for the same weights, cells and draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyro
import torch
from torch.distributions import Normal

from cellvae.inference.topics import mean_proportions
from cellvae.model.amortized_lda import AmortizedLDAConfig, AmortizedLDAModule, LDABatch


def test_topics_and_losses_are_those_of_scvi_tools() -> None:
    with np.load(Path(__file__).with_name("lda.npz")) as arrays:
        theirs = {name: torch.from_numpy(arrays[name]) for name in arrays}
    config = AmortizedLDAConfig(n_topics=3, n_hidden=8, cell_topic_prior=(0.2, 0.5, 1.5))
    module = AmortizedLDAModule(12, config).eval()
    module.n_cells = 10
    weights = {n.removeprefix("weight "): t for n, t in theirs.items() if n.startswith("weight ")}
    own = {name.split(".", 1)[1]: tensor for name, tensor in weights.items()}
    assert set(module.state_dict()) == set(own) - {"_dummy"}
    torch.testing.assert_close(
        dict(module.named_buffers())["cell_topic_prior_mu"], own["cell_topic_prior_mu"]
    )
    own.pop("_dummy")
    module.load_state_dict(own)
    batch = LDABatch(theirs["counts"])
    posterior = module.encode(batch).posterior
    torch.testing.assert_close(posterior.loc, theirs["mean"])
    torch.testing.assert_close(posterior.scale, theirs["deviation"])
    draws = {"topic_features": theirs["topic features"], "cell_topics": theirs["cell topics"]}
    substituted = pyro.condition(module.guide, data={})
    guide = pyro.poutine.trace(substituted).get_trace(batch, torch.ones(()))
    for name, value in draws.items():
        guide.nodes[name]["value"] = value
    model = pyro.poutine.trace(pyro.poutine.replay(module.model, trace=guide)).get_trace(
        batch, torch.ones(())
    )
    model.compute_log_prob()
    reconstruction = -model.nodes["counts"]["unscaled_log_prob"]
    torch.testing.assert_close(reconstruction, theirs["reconstruction"], rtol=1e-5, atol=1e-4)
    loss = module.loss(batch, torch.ones(()))
    torch.testing.assert_close(loss.total_kl, theirs["kl"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.kl_global, theirs["kl_global"], rtol=1e-5, atol=1e-4)
    mean, deviation = module.topic_feature_posterior_mu, module.topic_feature_posterior_sigma
    shares = mean_proportions(mean.detach(), deviation.detach(), 200_000)
    torch.testing.assert_close(shares, theirs["feature_by_topic"], rtol=0.02, atol=1e-3)


def test_the_objective_is_the_bound_written_out() -> None:
    torch.manual_seed(0)
    module = AmortizedLDAModule(12, AmortizedLDAConfig(n_topics=3, n_hidden=8)).eval()
    module.n_cells = 40
    batch = LDABatch(torch.poisson(5 * torch.rand(10, 12)))
    torch.manual_seed(1)
    loss = module.loss(batch, torch.tensor(0.3))
    expected = (loss.total_reconstruction + 0.3 * loss.total_kl).mean() + 0.3 * loss.kl_global / 40
    torch.testing.assert_close(loss.loss, expected)
    prior = module.prior(batch)
    kl = torch.distributions.kl_divergence(module.encode_topics(batch), prior).sum(dim=-1)
    torch.testing.assert_close(loss.total_kl, kl)
    of_topics = Normal(module.topic_feature_posterior_mu, module.topic_feature_posterior_sigma)
    prior = Normal(module.topic_feature_prior_mu, module.topic_feature_prior_sigma)
    shared = torch.distributions.kl_divergence(of_topics, prior).sum()
    torch.testing.assert_close(loss.kl_global, shared)
    torch.manual_seed(1)
    topics = of_topics.rsample().softmax(dim=-1)
    cells = module.encode_topics(batch).rsample().softmax(dim=-1)
    cost = -(batch.counts * (cells @ topics).log()).sum(dim=-1)
    torch.testing.assert_close(loss.total_reconstruction, cost)

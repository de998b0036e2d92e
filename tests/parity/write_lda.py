"""Numbers of scvi-tools' AmortizedLDA, written to `lda.npz`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/parity/write_lda.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pyro import poutine
from scvi.module import AmortizedLDAPyroModule

N_CELLS, N_FEATURES, N_TOPICS = 10, 12, 3


def main() -> None:
    torch.manual_seed(0)
    module = AmortizedLDAPyroModule(
        N_FEATURES, N_TOPICS, 8, cell_topic_prior=[0.2, 0.5, 1.5]
    ).eval()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    counts = torch.poisson(5 * torch.rand(N_CELLS, N_FEATURES))
    kwargs = (counts, counts.sum(dim=1))
    guide = poutine.trace(module.guide).get_trace(*kwargs, n_obs=N_CELLS)
    model = poutine.trace(poutine.replay(module.model, trace=guide)).get_trace(
        *kwargs, n_obs=N_CELLS
    )
    model.compute_log_prob()
    guide.compute_log_prob()
    cells, topics = (
        torch.distributions.kl_divergence(guide.nodes[name]["fn"], model.nodes[name]["fn"])
        for name in ("log_cell_topic_dist", "log_topic_feature_dist")
    )
    values = {
        "counts": counts,
        "cell topics": guide.nodes["log_cell_topic_dist"]["value"],
        "topic features": guide.nodes["log_topic_feature_dist"]["value"],
        "mean": guide.nodes["log_cell_topic_dist"]["fn"].base_dist.loc,
        "deviation": guide.nodes["log_cell_topic_dist"]["fn"].base_dist.scale,
        "reconstruction": -model.nodes["feature_counts"]["unscaled_log_prob"],
        "kl": cells,
        "kl_global": topics.sum(),
        "feature_by_topic": module.topic_by_feature(200_000),
        **{f"weight {name}": tensor for name, tensor in module.state_dict().items()},
    }
    arrays = {name: tensor.detach().numpy() for name, tensor in values.items()}
    np.savez_compressed(Path(__file__).with_name("lda.npz"), **arrays)


if __name__ == "__main__":
    main()

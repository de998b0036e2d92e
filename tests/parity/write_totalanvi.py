"""Numbers of scvi-tools' TOTALANVAE, written to `totalanvi.npz`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/parity/write_totalanvi.py`. The
numbers of 1.5.1 are the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import totalvi_cases as cases
from scvi.external.totalanvi._module import TOTALANVAE
from torch.distributions import Normal
from write_totalvi import new_tensors, rsample


def new_module(name: str) -> TOTALANVAE:
    """Network of a case in eval mode, with its weights."""
    covariates = name in cases.WITH_COVARIATES
    measured = cases.MEASURED.get(name)
    module = TOTALANVAE(
        cases.N_GENES,
        cases.N_PROTEINS,
        n_batch=cases.N_BATCH,
        n_labels=cases.N_KNOWN_LABELS,
        n_hidden=cases.N_HIDDEN,
        n_latent=cases.N_LATENT,
        n_cats_per_cov=cases.N_CATS_PER_COV if covariates else None,
        n_continuous_cov=cases.N_CONTINUOUS if covariates else 0,
        n_panel=cases.N_BATCH,
        protein_batch_mask=measured and {str(i): np.array(m) for i, m in enumerate(measured)},
        library_log_means=np.zeros((1, cases.N_BATCH)),
        library_log_vars=np.ones((1, cases.N_BATCH)),
        **cases.CONFIGS[name],
        **cases.LABEL_OPTIONS[name],
    )
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point() and key != "y_prior":
                tensor.copy_(torch.from_numpy(cases.new_weight(key, tuple(tensor.shape))))
    return module.eval()


def numbers(name: str) -> dict[str, torch.Tensor]:
    """Scores, parts of the loss, and gradients."""
    module, tensors = new_module(name), new_tensors(name)
    tensors["labels"] = torch.from_numpy(cases.new_labels())
    labelled = {key: tensor[: cases.N_LABELLED] for key, tensor in tensors.items()}
    _, _, losses = module(
        tensors,
        inference_kwargs={"label": tensors["labels"]},
        loss_kwargs={"kl_weight": 0.6, "labelled_tensors": labelled, "classification_ratio": 50},
    )
    losses.loss.backward()
    return {
        "loss": losses.loss,
        "cross_entropy": losses.classification_loss,
        "scores": losses.logits,
        **losses.reconstruction_loss,
        **losses.kl_local,
        **{
            f"grad {key}": weight.grad
            for key, weight in module.named_parameters()
            if weight.grad is not None
        },
    }


def main() -> None:
    Normal.rsample = rsample
    values = {
        f"{name}: {key}": value.detach().numpy()
        for name in cases.LABEL_OPTIONS
        for key, value in numbers(name).items()
    }
    given = sys.argv[1:]
    path = Path(given[0]) if given else Path(__file__).with_name("totalanvi.npz")
    np.savez_compressed(path, **values)


if __name__ == "__main__":
    main()

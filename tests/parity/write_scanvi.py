"""Numbers of scvi-tools' SCANVAE, written to `scanvi.npz`.

Run by hand, in an environment with scvi-tools==1.4.2 and captum:
`python tests/parity/write_scanvi.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
from scvi.module import SCANVAE
from torch.distributions import Normal

CASES: dict[str, dict[str, Any]] = {
    "plain": {"gene_likelihood": "zinb", "n_layers": 2},
    "linear": {
        "gene_likelihood": "nb",
        "linear_classifier": True,
        "dispersion": "gene-batch",
        "use_observed_lib_size": False,
        "encode_covariates": True,
    },
    "probabilities": {
        "gene_likelihood": "nb",
        "encode_covariates": True,
        "classifier_parameters": {"logits": False, "n_layers": 2},
    },
}
N_CELLS, N_LABELLED, N_GENES, N_LABELS = 20, 8, 12, 4


def noise_of(shape: torch.Size) -> torch.Tensor:
    """Noise of a shape, the same wherever it is asked for."""
    return torch.from_numpy(np.random.default_rng(shape.numel()).normal(size=shape)).float()


def main() -> None:
    Normal.rsample = lambda self: self.loc + self.scale * noise_of(self.loc.shape)  # type: ignore
    torch.manual_seed(0)
    counts = torch.poisson(5 * torch.rand(N_CELLS, N_GENES))
    batch, codes = (torch.arange(N_CELLS) % 3)[:, None], (torch.arange(N_CELLS) % 2)[:, None]
    labels = (torch.arange(N_CELLS) % N_LABELS)[:, None]
    continuous = torch.randn(N_CELLS, 1)
    tensors = {
        "X": counts,
        "batch": batch,
        "labels": labels,
        "extra_categorical_covs": codes,
        "extra_continuous_covs": continuous,
    }
    values = {
        "counts": counts,
        "batch": batch,
        "codes": codes,
        "labels": labels,
        "continuous": continuous,
    }
    for name, config in CASES.items():
        latent = not config.get("use_observed_lib_size", True)
        prior = {
            "library_log_means": np.full((1, 3), 3.0),
            "library_log_vars": np.full((1, 3), 0.5),
        }
        module = SCANVAE(
            N_GENES,
            n_batch=3,
            n_labels=N_LABELS,
            n_hidden=8,
            n_latent=3,
            n_continuous_cov=1,
            n_cats_per_cov=[2],
            **(prior if latent else {}),
            **config,
        ).eval()
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        labelled = {key: tensor[:N_LABELLED] for key, tensor in tensors.items()}
        kwargs = {"kl_weight": 0.7, "labelled_tensors": labelled, "classification_ratio": 50}
        inference, _, losses = module(tensors, loss_kwargs=kwargs)
        losses.loss.backward()
        covariates = {"batch_index": batch, "cont_covs": continuous, "cat_covs": codes}
        scores = module.classify(counts, **covariates)
        # As SCANVI.predict(ig_interpretability=True) calls it.
        (attributions,) = IntegratedGradients(module.classify).attribute(
            (counts,),
            target=scores.argmax(dim=1),
            additional_forward_args=(batch, continuous, codes),
        )
        of_case = {
            "mean": inference["qz"].loc,
            "reconstruction": next(iter(losses.reconstruction_loss.values())),
            "kl": next(iter(losses.kl_local.values())),
            "loss": losses.loss,
            "cross_entropy": losses.classification_loss,
            "probabilities": scores.softmax(dim=-1) if module.classifier.logits else scores,
            "attributions": attributions,
            "gradient": module.z_encoder.encoder.fc_layers[0][0].weight.grad,
            **{f"weight {key}": tensor for key, tensor in module.state_dict().items()},
        }
        values |= {f"{name} {key}": tensor for key, tensor in of_case.items()}
    arrays = {name: tensor.detach().numpy() for name, tensor in values.items()}
    np.savez_compressed(Path(__file__).with_name("scanvi.npz"), **arrays)


if __name__ == "__main__":
    main()

"""Attribution of predicted labels to genes, by integrated gradients of the package captum."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cellvae.core.eval_mode import eval_mode
from cellvae.core.options import check_kwargs
from cellvae.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

RESERVED_ARGUMENTS = (
    "self",
    "inputs",
    "target",
    "additional_forward_args",
    "return_convergence_delta",
)
"""Arguments of captum's method that users cannot set."""


def load_captum() -> Any:
    """The module `captum.attr`.

    Raises
    ------
    InvalidOptionError
        If the package is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise InvalidOptionError(
            "Expected the package captum for ig_interpretability=True; it is not installed. "
            'Install it with: pip install "cellvae[interpretability]"'
        ) from error
    return captum.attr


def check_captum_kwargs(captum_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keyword arguments for `captum.attr.IntegratedGradients.attribute`.

    Raises
    ------
    UnknownOptionError
        If there is no such argument.
    """
    method = load_captum().IntegratedGradients.attribute
    known = [
        name for name in inspect.signature(method).parameters if name not in RESERVED_ARGUMENTS
    ]
    kwargs = dict(captum_kwargs or {})
    check_kwargs(kwargs, known, "ig_args")
    return kwargs


@contextmanager
def input_gradients(module: torch.nn.Module) -> Iterator[None]:
    """Context in eval mode in which inputs have gradients and weights have none."""
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in trainable:
        weight.requires_grad_(False)
    try:
        with eval_mode(module), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)


def integrated_gradients(
    module: Any, batch: Any, labels: Int[Tensor, " cells"], captum_kwargs: Mapping[str, Any]
) -> Float[Tensor, "cells genes"]:
    """Attribution of the score of a label of each cell to the counts of its genes.

    Parameters
    ----------
    module
        Network whose `classify` gives scores from the mean of the latent posterior.
    batch
        Cells, a named tuple with dense `counts`.
    labels
        Index of a label for each cell.
    captum_kwargs
        Keyword arguments of `captum.attr.IntegratedGradients.attribute`.

    Returns
    -------
    Gradients of the score, integrated from the baseline (by default no counts) to the counts;
    their sum is the difference of the scores.

    References
    ----------
    Sundararajan, Taly, Yan (2017): Axiomatic attribution for deep networks. ICML, equation 1.
    """
    position = batch._fields.index("counts")
    others = [*batch]
    counts = others.pop(position)

    def scores(counts: Tensor, *others: Any) -> Tensor:
        """Scores of labels; captum repeats all tensors for each step of the integral."""
        values = [*others]
        values.insert(position, counts)
        logits: Tensor = module.classify(type(batch)(*values), use_posterior_mean=True)
        return logits

    method = load_captum().IntegratedGradients(scores)
    with input_gradients(module):
        # A tensor made in inference mode cannot be differentiated.
        inputs = (counts.clone(),)
        (result,) = method.attribute(
            inputs, target=labels, additional_forward_args=tuple(others), **captum_kwargs
        )
    attributions: Tensor = result.detach()
    return attributions


@final
class AttributionSums:
    """Running mean and standard deviation over cells of the attribution of each gene."""

    def __init__(self, n_genes: int) -> None:
        self.n_cells = 0
        self.mean = torch.zeros(n_genes, dtype=torch.float64)
        self.squares = torch.zeros(n_genes, dtype=torch.float64)

    def add(self, attributions: Float[Tensor, "cells genes"]) -> None:
        """Add cells, by the parallel update of Chan, Golub and LeVeque (1983)."""
        values = attributions.double().cpu()
        n, mean = len(values), values.mean(dim=0)
        total = self.n_cells + n
        delta = mean - self.mean
        self.squares += (values - mean).square().sum(dim=0)
        self.squares += delta.square() * (self.n_cells * n / total)
        self.mean += delta * (n / total)
        self.n_cells = total

    def table(self, genes: Sequence[str]) -> pd.DataFrame:
        """Table of genes, sorted by their mean attribution in descending order."""
        import pandas as pd

        mean = self.mean.numpy()
        order = np.argsort(-mean, kind="stable")
        return pd.DataFrame(
            {
                "feature": np.asarray(genes, dtype=object)[order],
                "feature_idx": order,
                "modality": "None",
                "attribution_mean": mean[order],
                "attribution_std": np.sqrt(self.squares.numpy() / self.n_cells)[order],
                "cells": self.n_cells,
            }
        )

"""Classifier: from the latent representation of a cell to scores of the labels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cellvae.nn.fc_layers import FCLayers


class Classifier(nn.Module):
    """Network that predicts the label of a cell: a logit or a probability for each label.

    Names of parameters are those of scvi-tools, so that weights can be exchanged.

    Parameters
    ----------
    n_input
        Number of features of a cell.
    n_labels
        Number of labels.
    n_layers
        Number of hidden layers; 0 for a linear classifier.
    n_hidden, dropout_rate, use_batch_norm, use_layer_norm
        As in :class:`FCLayers`.
    logits
        Whether scores are logits; otherwise they are probabilities, which sum to 1.
    """

    def __init__(
        self,
        n_input: int,
        n_labels: int,
        *,
        n_layers: int = 1,
        n_hidden: int = 128,
        dropout_rate: float = 0.1,
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
        logits: bool = True,
    ) -> None:
        super().__init__()
        self.logits = logits
        hidden: list[nn.Module] = []
        if n_layers and n_hidden:
            hidden = [
                FCLayers(
                    n_input,
                    n_hidden,
                    n_layers=n_layers,
                    n_hidden=n_hidden,
                    dropout_rate=dropout_rate,
                    use_batch_norm=use_batch_norm,
                    use_layer_norm=use_layer_norm,
                )
            ]
        self.classifier = nn.Sequential(
            *hidden, nn.Linear(n_hidden if hidden else n_input, n_labels)
        )

    def forward(self, z: Float[Tensor, "cells features"]) -> Float[Tensor, "cells labels"]:
        """Scores of the labels: logits or probabilities."""
        scores: Tensor = self.classifier(z)
        return scores if self.logits else scores.softmax(dim=-1)

    def log_probabilities(
        self, z: Float[Tensor, "cells features"]
    ) -> Float[Tensor, "cells labels"]:
        """Log-probabilities of the labels."""
        scores: Tensor = self.classifier(z)
        return scores.log_softmax(dim=-1)

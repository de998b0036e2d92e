"""Which weights of a reference are frozen while a query is learned (scArches).

Sub-networks are recognised by their names, as in scvi-tools: "encoder" and "decoder" anywhere in
the path of a layer, and "px_decoder" for the layers that read the latent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cellvae.contracts import Module
from cellvae.core.frozen_weights import FrozenWeights, WeightSlice
from cellvae.nn.fc_layers import FCLayers


@dataclass(frozen=True, kw_only=True)
class FreezeOptions:
    """Which weights of a reference are frozen while a query is learned."""

    unfrozen: bool = False
    freeze_dropout: bool = False
    freeze_expression: bool = True
    freeze_decoder_first_layer: bool = True
    freeze_batchnorm_encoder: bool = True
    freeze_batchnorm_decoder: bool = False
    freeze_classifier: bool = True

    def frozen_weights(
        self, module: Module[Any], grown: Mapping[str, WeightSlice]
    ) -> FrozenWeights:
        """Parameters, and parts of parameters, that training does not change.

        Parameters
        ----------
        module
            Network of the query.
        grown
            For each parameter with further categories, the slice that is that of the reference.
        """
        if self.unfrozen:
            return FrozenWeights()
        trained = tuple(f"{path}." for path in self.retrained_layers(module))
        names = [name for name, _ in module.named_parameters() if not name.startswith(trained)]
        eval_modules = [
            path
            for path, layer in module.named_modules()
            if (isinstance(layer, nn.BatchNorm1d) and not f"{path}.".startswith(trained))
            or (isinstance(layer, nn.Dropout) and self.freeze_dropout)
        ]
        return FrozenWeights(
            parameters=tuple(name for name in names if name not in grown),
            slices={name: grown[name] for name in names if name in grown},
            eval_modules=tuple(eval_modules),
        )

    def retrained_layers(self, module: Module[Any]) -> Iterator[str]:
        """Paths of the layers that are trained on the query as a whole."""
        yield from module.retrained_on_query
        if hasattr(module, "classifier") and not self.freeze_classifier:
            yield "classifier"
        for path, layer in module.named_modules():
            encodes, decodes = "encoder" in path, "decoder" in path
            if isinstance(layer, nn.BatchNorm1d) and (
                (encodes and not self.freeze_batchnorm_encoder)
                or (decodes and not self.freeze_batchnorm_decoder)
            ):
                yield path
            reads_labels = path.partition(".")[0] in module.label_networks
            if isinstance(layer, FCLayers) and not reads_labels:
                first = f"{path}.fc_layers.Layer 0.0"
                if encodes and not self.freeze_expression:
                    yield first
                if "px_decoder" in path and not self.freeze_decoder_first_layer:
                    yield first

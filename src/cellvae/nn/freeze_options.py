"""Which weights of a reference are frozen while a query is learned (scArches).

Each network declares in `frozen_by`, beside its layers, which of them an option freezes. A layer
that several options freeze is trained if one of them is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cellvae.contracts import Module
from cellvae.core.frozen_weights import FrozenWeights, WeightSlice

FIRST_LAYER = ("freeze_expression", "freeze_decoder_first_layer")
"""Options that freeze the first linear layer of the layers that name them."""
NORMALIZATION = ("freeze_batchnorm_encoder", "freeze_batchnorm_decoder")
"""Options that freeze their batch normalization."""


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
        for path, network in module.named_modules():
            for option, names in getattr(network, "frozen_by", {}).items():
                if getattr(self, option):
                    continue
                for name in names:
                    yield from thawed_parts(module, option, f"{path}.{name}".removeprefix("."))


def thawed_parts(module: Module[Any], option: str, path: str) -> Iterator[str]:
    """Paths of what is trained of a layer if the option that freezes it is off."""
    layers = {
        name: layer for name, layer in module.named_modules() if f"{name}.".startswith(f"{path}.")
    }
    if not layers:
        # The options of the network have left it out.
        return
    if option in NORMALIZATION:
        yield from (name for name, layer in layers.items() if isinstance(layer, nn.BatchNorm1d))
    elif option in FIRST_LAYER:
        if path.partition(".")[0] not in module.label_networks:
            yield f"{path}.fc_layers.Layer 0.0"
    else:
        yield path

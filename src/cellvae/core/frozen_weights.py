"""Weights that training leaves as they are, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from cellvae.errors import FileFormatError


class WeightSlice(NamedTuple):
    """Ranges of a tensor along one of its dimensions."""

    dim: int
    ranges: tuple[tuple[int, int], ...]

    def select(self, tensor: Tensor) -> Iterator[Tensor]:
        """Views of the ranges."""
        for start, stop in self.ranges:
            yield tensor.narrow(self.dim, start, stop - start)


@dataclass(frozen=True, kw_only=True)
class FrozenWeights:
    """What training leaves as it is in a network that began as another one.

    Parameters
    ----------
    whole
        Names of parameters that stay.
    parts
        Ranges that stay of parameters which train for the rest.
    still
        Names of layers of normalisation and dropout that work in training as they do afterwards.
    """

    parameters: tuple[str, ...] = ()
    slices: Mapping[str, WeightSlice] = field(default_factory=dict)
    eval_modules: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.parameters or self.slices or self.eval_modules)

    def tensors(self, module: nn.Module) -> Iterator[Tensor]:
        """Views of everything that stays, in the same order for networks of the same kind."""
        parameters = dict(module.named_parameters())
        for name in self.parameters:
            yield parameters[name].detach()
        for name, part in self.slices.items():
            yield from part.select(parameters[name].detach())
        for name in self.eval_modules:
            yield from module.get_submodule(name).buffers()

    def to_json(self) -> dict[str, object]:
        """Values for JSON."""
        return {
            "whole": list(self.parameters),
            "parts": {
                name: [dim, [*map(list, ranges)]] for name, (dim, ranges) in self.slices.items()
            },
            "still": list(self.eval_modules),
        }

    @classmethod
    def from_json(cls, values: object, module: nn.Module) -> FrozenWeights:
        """What stays in a network, from the values of its JSON object.

        Raises
        ------
        FileFormatError
            If they are not names and ranges of this network.
        """
        parameters, layers = dict(module.named_parameters()), dict(module.named_modules())
        refusal = FileFormatError(
            "Expected training.kept in model.json to name weights of the network; got others. "
            "Use the file that was saved."
        )
        try:
            whole, still = tuple(values["whole"]), tuple(values["still"])  # type: ignore[index]
            parts = {
                str(name): WeightSlice(
                    int(dim), tuple((int(start), int(stop)) for start, stop in ranges)
                )
                for name, (dim, ranges) in values["parts"].items()  # type: ignore[index]
            }
            sizes = {name: parameters[name].shape[part.dim] for name, part in parts.items()}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise refusal from error
        inside = (
            part.dim >= 0 and all(0 <= start <= stop <= sizes[name] for start, stop in part.ranges)
            for name, part in parts.items()
        )
        if not (parameters.keys() >= {*whole} and layers.keys() >= {*still} and all(inside)):
            raise refusal
        return cls(parameters=whole, slices=parts, eval_modules=still)

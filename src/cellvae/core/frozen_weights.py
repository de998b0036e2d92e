"""Weights that training does not change, bit by bit."""

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
    """Weights of a network that training does not change, as in scArches' reference mapping.

    Parameters
    ----------
    parameters
        Names of parameters that are frozen as a whole.
    slices
        Frozen slices of parameters that are trained otherwise, by the name of the parameter.
    eval_modules
        Names of BatchNorm and Dropout submodules that stay in eval mode during training.
    """

    parameters: tuple[str, ...] = ()
    slices: Mapping[str, WeightSlice] = field(default_factory=dict)
    eval_modules: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.parameters or self.slices or self.eval_modules)

    def freeze_in(self, module: nn.Module) -> None:
        """Set `requires_grad` of the parameters that are frozen as a whole to False."""
        parameters = dict(module.named_parameters())
        for name in self.parameters:
            parameters[name].requires_grad_(False)

    def set_eval_mode_in(self, module: nn.Module) -> None:
        """Put the submodules that stay in eval mode into it."""
        for name in self.eval_modules:
            module.get_submodule(name).eval()

    def tensors(self, module: nn.Module) -> Iterator[Tensor]:
        """Views of all frozen values, in the same order for networks of the same architecture."""
        parameters = dict(module.named_parameters())
        for name in self.parameters:
            yield parameters[name].detach()
        for name, part in self.slices.items():
            yield from part.select(parameters[name].detach())
        for name in self.eval_modules:
            yield from module.get_submodule(name).buffers()

    def to_json(self) -> dict[str, object]:
        """Values of the JSON object in `model.json`."""
        return {
            "whole": list(self.parameters),
            "parts": {
                name: [dim, [*map(list, ranges)]] for name, (dim, ranges) in self.slices.items()
            },
            "still": list(self.eval_modules),
        }

    @classmethod
    def from_json(cls, values: object, module: nn.Module) -> FrozenWeights:
        """Frozen weights of a network, from the values of a JSON object.

        Raises
        ------
        FileFormatError
            If these are not names and ranges of this network.
        """
        parameters, layers = dict(module.named_parameters()), dict(module.named_modules())
        mismatch = FileFormatError(
            "Expected training.kept in model.json to name weights of the network; got others. "
            "Use the file that was saved."
        )
        try:
            names, eval_modules = tuple(values["whole"]), tuple(values["still"])  # type: ignore[index]
            slices = {
                str(name): WeightSlice(
                    int(dim), tuple((int(start), int(stop)) for start, stop in ranges)
                )
                for name, (dim, ranges) in values["parts"].items()  # type: ignore[index]
            }
            sizes = {name: parameters[name].shape[part.dim] for name, part in slices.items()}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise mismatch from error
        inside = (
            part.dim >= 0 and all(0 <= start <= stop <= sizes[name] for start, stop in part.ranges)
            for name, part in slices.items()
        )
        if not (parameters.keys() >= {*names} and layers.keys() >= {*eval_modules} and all(inside)):
            raise mismatch
        return cls(parameters=names, slices=slices, eval_modules=eval_modules)

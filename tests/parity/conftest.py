"""Networks and cells of the pinned files, as cellvae has them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from cellvae.model.components.count_batch import CountBatch
from cellvae.model.scvi import SCVIConfig, SCVIModule, SCVISizes

FOLDER = Path(__file__).parent / "pinned"
OUR_NAMES = {"_embeddings_dict.batch.weight": "batch_embedding.weight"}


@functools.cache
def read(file: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file says of itself, and its arrays."""
    with np.load(FOLDER / f"{file}.npz", allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"])) if "about" in arrays else {}
        values = {name: torch.from_numpy(arrays[name]) for name in arrays if name != "about"}
    return about, values


@functools.cache
def weight_table() -> dict[str, Tensor]:
    """Weights of all cases, by name and shape."""
    sizes, values = read("weights")
    return dict(zip(sizes, values["values"].split(list(sizes.values())), strict=True))


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A network of scvi-tools and what it said; names of tensors are those of cellvae."""

    about: dict[str, Any]
    values: dict[str, Tensor]

    def names(self, kind: str) -> list[str]:
        """Names of "shapes" (all tensors), "parameters", "trained" ones or "running" statistics."""
        return [OUR_NAMES.get(name, name) for name in self.about[kind]]

    def weights(self) -> dict[str, Tensor]:
        """Weights before training, those without effect too."""
        table = weight_table()
        shapes = self.about["shapes"].items()
        tensors = [table[f"{name} {shape}"].reshape(shape) for name, shape in shapes]
        return dict(zip(self.names("shapes"), tensors, strict=True))

    def unpack(self, vector: str, kind: str) -> dict[str, Tensor]:
        """Tensors that lie one after the other in a vector."""
        shapes = [self.about["shapes"][name] for name in self.about[kind]]
        pieces = self.values[vector].split([prod(shape) for shape in shapes])
        tensors = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return dict(zip(self.names(kind), tensors, strict=True))

    def without_effect(self) -> set[str]:
        """Tensors that scvi-tools makes although the options have no use for them."""
        config, sizes = self.about["config"], self.about["sizes"]
        likelihood = config.get("gene_likelihood", "zinb")
        idle = []
        if sizes["size_factor"] or config.get("use_observed_lib_size", True):
            idle.append("l_encoder.")
        if likelihood == "poisson" or config.get("dispersion") != "gene-cell":
            idle.append("decoder.px_r_decoder.")
        if likelihood == "poisson":
            idle.append("px_r")
        if likelihood != "zinb":
            idle.append("decoder.px_dropout_decoder.")
        return {name for name in self.names("shapes") if name.startswith(tuple(idle))}

    def module(self, dropout_rate: float = 0.0) -> SCVIModule:
        """Our network with the weights of theirs; a tensor that is missing or left over raises."""
        sizes = {
            **self.about["sizes"],
            "n_cats_per_cov": tuple(self.about["sizes"]["n_cats_per_cov"]),
        }
        config = SCVIConfig(**self.about["config"], dropout_rate=dropout_rate)
        module = SCVIModule(SCVISizes(**sizes), config)
        counters = {k: v for k, v in module.state_dict().items() if not v.is_floating_point()}
        idle = self.without_effect()
        given = {name: value for name, value in self.weights().items() if name not in idle}
        module.load_state_dict(counters | given)
        return module

    def batch(self, cells: Tensor | None = None) -> CountBatch:
        """Cells with these numbers; all cells of the case if none are given."""
        inputs, sizes = read("inputs")[1], self.about["sizes"]
        cells = torch.arange(self.about["n_cells"]) if cells is None else cells
        taken = {name: values[cells] for name, values in inputs.items()}
        codes = [taken["codes"] % n for n in sizes["n_cats_per_cov"]]
        return CountBatch(
            counts=taken["counts"],
            batch=taken["batch"] % sizes["n_batch"],
            labels=taken["labels"] % sizes["n_labels"],
            size_factor=taken["size_factor"] if sizes["size_factor"] else None,
            categorical=torch.cat(codes, dim=1) if codes else None,
            continuous=taken["continuous"] if sizes["n_continuous"] else None,
        )


def files(kind: str) -> list[str]:
    """Names of the pinned files of a kind."""
    return sorted(path.stem for path in FOLDER.glob(f"{kind}-*.npz"))


@pytest.fixture(params=files("case"))
def case(request: pytest.FixtureRequest) -> Pinned:
    about, values = read(request.param)
    return Pinned(about=about, values=values)


@pytest.fixture(params=files("run"))
def training_run(request: pytest.FixtureRequest) -> Pinned:
    about, values = read(request.param)
    return Pinned(about=about, values=values)


@pytest.fixture
def draw_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor, Tensor], None]:
    """Make draws of normal posteriors from given noise, of the latent and of the library."""

    def prepare(noise_z: Tensor, noise_library: Tensor) -> None:
        noise = {n.shape[-1]: n for n in (noise_z, noise_library)}

        def rsample(posterior: Normal, shape: tuple[int, ...] = ()) -> Tensor:
            assert not shape
            return posterior.loc + posterior.scale * noise[posterior.loc.shape[-1]]

        monkeypatch.setattr(Normal, "rsample", rsample)

    return prepare


@pytest.fixture
def same_noise(case: Pinned, draw_from: Callable[[Tensor, Tensor], None]) -> None:
    """The draws of a case, the same on both sides."""
    values, n = read("inputs")[1], case.about["n_cells"]
    draw_from(values["noise_z"][:n], values["noise_library"][:n])


@pytest.fixture
def pinned_cases() -> list[Pinned]:
    return [Pinned(about=read(name)[0], values=read(name)[1]) for name in files("case")]

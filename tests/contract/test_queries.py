"""Models that map further cells onto what they learned: the reference stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.core.frozen_weights import WeightSlice
from cellvae.nn import FCLayers
from cellvae.nn.freeze_options import FreezeOptions

pytestmark = pytest.mark.trains

OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "decay": {"optimizer": "AdamW", "weight_decay": 0.2, "lr": 0.05},
    "penalty": {"weight_decay": 0.2, "lr": 0.05},
    "momentum": {
        "optimizer": "Custom",
        "optimizer_creator": lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=0.5),
    },
}


@pytest.fixture(scope="module")
def reference(case: Any, trained: Any) -> Any:
    if not hasattr(case.kind, "load_query_data"):
        pytest.skip(f"{case.name} maps no cells")
    return trained


@pytest.fixture
def query(case: Any) -> AnnData:
    """Cells of a batch and a donor that the reference knows, and of others."""
    adata = case.prepared()[:60].copy()
    adata.uns.clear()
    random = np.random.default_rng(3)
    adata.obs["batch"] = random.choice(["b1", "new1", "new0"], 60)
    adata.obs["donor"] = random.choice(["d0", "new"], 60)
    return adata


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def old_part(tensor: torch.Tensor, part: WeightSlice | None) -> torch.Tensor:
    return tensor if part is None else torch.cat([*part.select(tensor)], dim=part.dim)


def test_new_categories_come_last_and_change_nothing_for_known_cells(
    case: Any, reference: Any, query: AnnData
) -> None:
    before = state(reference)
    model = case.kind.load_query_data(query, reference)
    assert model.registration.categories("batch") == ("b0", "b1", "b2", "new0", "new1")
    assert model.registration.fields["categorical"].categories == (("d0", "d1", "new"),)
    assert not model.is_trained and not model.history.table.size
    assert all(torch.equal(before[k], v) for k, v in reference.module.state_dict().items())
    model.is_trained = True
    np.testing.assert_allclose(
        model.get_latent_representation(reference.adata),
        reference.get_latent_representation(),
        atol=1e-6,
    )
    torch.manual_seed(0)
    mapped = model.get_elbo(reference.adata)
    torch.manual_seed(0)
    assert mapped == pytest.approx(reference.get_elbo(), rel=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_of_the_reference_stay_to_the_last_bit(
    case: Any, reference: Any, query: AnnData, train: Callable[..., None], optimizer: str
) -> None:
    model = case.kind.load_query_data(query, reference, freeze_batchnorm_decoder=True)
    kept, begin, known = model.module.frozen_weights, state(model), state(reference)
    train(model, plan_kwargs=OPTIMIZERS[optimizer], gradient_clip_val=1.0)
    end = state(model)
    moved = {name for name in begin if not torch.equal(begin[name], end[name])}
    retrained = reference.module.retrained_on_query
    own = set(kept.slices)
    assert {name for name in moved if not name.startswith(retrained)} == own
    for name in own:
        # A part that stays is that of the reference, unless the reference had no column for it.
        stays = old_part(end[name], kept.slices[name])
        assert torch.equal(stays, old_part(begin[name], kept.slices[name]))
        assert stays.shape == known[name].shape
        assert torch.equal(stays, known[name])
    for name, tensor in known.items():
        if name not in own and not name.startswith((*retrained, "library_log")):
            assert torch.equal(tensor, end[name]), name


def test_each_network_declares_which_option_freezes_its_layers(case: Any, reference: Any) -> None:
    options = {field.name for field in fields(FreezeOptions)}
    layers = dict(reference.module.named_modules())
    declared: dict[str, set[str]] = {}
    for path, network in layers.items():
        for option, names in getattr(network, "frozen_by", {}).items():
            assert option in options
            for name in names:
                declared.setdefault(f"{path}.{name}".removeprefix("."), set()).add(option)
    normalized = {
        path.partition(".fc_layers.")[0]
        for path, layer in layers.items()
        if isinstance(layer, torch.nn.BatchNorm1d)
    }
    for path in normalized:
        roles = {part for part in ("encoder", "decoder") if part in path}
        frozen_by = declared.get(path, set())
        assert {option for option in frozen_by if "batchnorm" in option} == {
            f"freeze_batchnorm_{role}" for role in roles
        }
    readers = {
        path
        for path, options in declared.items()
        if path in layers and {"freeze_expression", "freeze_decoder_first_layer"} & options
    }
    assert readers and all(isinstance(layers[path], FCLayers) for path in readers)


def test_options_free_what_they_name(
    case: Any, reference: Any, query: AnnData, train: Callable[..., None]
) -> None:
    def moved(**options: bool) -> set[str]:
        model = case.kind.load_query_data(query, reference, **options)
        begin = state(model)
        train(model, max_epochs=1, plan_kwargs={"lr": 0.05})
        end = model.module.state_dict()
        return {name for name in begin if not torch.equal(begin[name], end[name])}

    norms = [
        path
        for path, layer in reference.module.named_modules()
        if isinstance(layer, torch.nn.BatchNorm1d)
    ]
    plain = moved()
    frozen = moved(freeze_batchnorm_decoder=True)
    assert frozen <= plain
    assert {name.rpartition(".")[0] for name in plain - frozen} == {
        path for path in norms if "decoder" in path
    }
    encoder = moved(freeze_batchnorm_encoder=False) - plain
    assert {name.rpartition(".")[0] for name in encoder} == {
        path
        for path in norms
        if "encoder" in path and not path.startswith(reference.module.retrained_on_query)
    }
    first = moved(freeze_expression=False) - plain
    assert first and all("encoder" in name and "Layer 0.0" in name for name in first)
    decoder = moved(freeze_decoder_first_layer=False) - plain
    assert decoder and all("px_decoder.fc_layers.Layer 0.0" in name for name in decoder)
    everything = moved(unfrozen=True)
    trained = {name for name, _ in reference.module.named_parameters()}
    assert {name for name in trained - everything if "bias" not in name} == set()
    classifier = moved(freeze_classifier=False) - plain
    assert bool(classifier) == hasattr(case.kind, "predict")
    assert all(name.startswith("classifier") for name in classifier)


def test_what_is_kept_is_saved_and_kept_after_loading(
    case: Any, reference: Any, query: AnnData, train: Callable[..., None], tmp_path: Path
) -> None:
    reference.save(tmp_path / "reference", save_anndata=True)
    model = case.kind.load_query_data(query, tmp_path / "reference")
    train(model)
    model.save(tmp_path / "query")
    again = cellvae.load(tmp_path / "query", query)
    assert again.module.frozen_weights == model.module.frozen_weights
    begin = state(again)
    train(again, plan_kwargs=OPTIMIZERS["decay"])
    for name in again.module.frozen_weights.parameters:
        assert torch.equal(begin[name], again.module.state_dict()[name])
    for name, part in again.module.frozen_weights.slices.items():
        assert torch.equal(old_part(begin[name], part), old_part(state(again)[name], part))


def test_cells_of_known_categories_need_no_training(case: Any, reference: Any) -> None:
    query = case.prepared()[:40].copy()
    model = case.kind.load_query_data(query, reference, freeze_batchnorm_decoder=True)
    if "use_observed_lib_size" in case.config:
        assert not model.is_trained  # the size of cells is learned
        return
    np.testing.assert_allclose(
        model.get_latent_representation(), reference.get_latent_representation(query), atol=1e-6
    )
    with pytest.raises(cellvae.errors.InvalidOptionError, match="nothing to train"):
        model.train(max_epochs=1)

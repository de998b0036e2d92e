"""Cells asked for by number, mask or name, in any order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from cellvae.errors import InvalidOptionError, UnknownKeyError
from cellvae.model import SCVI
from cellvae.settings import settings

pytestmark = pytest.mark.trains

WANTED = [40, 3, 69, 3, 0]

FORMS: dict[str, Any] = {
    "numbers": WANTED,
    "array": np.array(WANTED, dtype=np.uint8),
    "from the end": [40, 3, -1, 3, -70],
    "names": [f"cell{i}" for i in WANTED],
    "index": pd.Index([f"cell{i}" for i in WANTED]),
    "tuple of one array": (np.array(WANTED),),
    "row": np.array([WANTED]),
    "column": np.array(WANTED)[:, None],
}


def assert_alike(first: np.ndarray, second: np.ndarray) -> None:
    """Equal but for rounding, which depends on what else is in a batch."""
    assert first.shape == second.shape
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_cells_come_in_the_order_asked_for(form: str, trained: SCVI) -> None:
    whole = trained.get_latent_representation()
    assert_alike(trained.get_latent_representation(indices=FORMS[form]), whole[WANTED])


def test_a_mask_gives_its_cells(trained: SCVI) -> None:
    mask = (trained.adata.obs["batch"] == "b1").to_numpy()
    whole = trained.get_latent_representation()
    assert_alike(trained.get_latent_representation(indices=mask), whole[mask])
    assert_alike(trained.get_latent_representation(indices=list(mask)), whole[mask])
    assert_alike(
        trained.get_latent_representation(indices=trained.adata.obs["batch"] == "b1"), whole[mask]
    )
    assert_alike(trained.get_latent_representation(indices=np.where(mask)), whole[mask])
    assert_alike(trained.get_latent_representation(indices=mask[:, None]), whole[mask])


def test_a_slice_gives_its_cells(trained: SCVI) -> None:
    whole = trained.get_latent_representation()
    assert_alike(trained.get_latent_representation(indices=slice(60, 2, -7)), whole[60:2:-7])


def test_indices_count_the_cells_that_are_given(
    cells: Callable[..., AnnData], trained: SCVI
) -> None:
    other = cells()[::-1].copy()
    whole = trained.get_latent_representation()
    assert_alike(trained.get_latent_representation(other, indices=[0, 1]), whole[[69, 68]])
    assert_alike(trained.get_latent_representation(other, indices=["cell5"]), whole[[5]])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_cells_on_disk_come_in_the_order_asked_for(
    form: Callable, cells: Callable[..., AnnData], trained: SCVI, tmp_path: Path
) -> None:
    other = cells()
    other.X = form(other.X)
    other.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    whole = trained.get_latent_representation()
    assert_alike(trained.get_latent_representation(on_disk, indices=WANTED), whole[WANTED])
    view = on_disk[[9, 2, 33]]
    assert_alike(trained.get_latent_representation(view, indices=[2, 0]), whole[[33, 9]])


def test_values_of_each_cell_come_in_the_order_asked_for(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData
) -> None:
    model = train(make(adata))
    head = model.module.z_encoder.var_encoder  # draws with almost no noise
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, -30)
    for ask in (
        model.get_elbo,
        lambda **kwargs: model.get_reconstruction_error(**kwargs)["reconstruction_loss"],
    ):
        whole = ask(return_mean=False)
        assert np.ptp(whole) > 5
        np.testing.assert_allclose(ask(indices=WANTED, return_mean=False), whole[WANTED], atol=0.2)
        assert ask(indices=WANTED) == pytest.approx(whole[WANTED].mean(), abs=0.2)


def test_the_size_of_batches_changes_nothing_but_rounding(trained: SCVI) -> None:
    whole = trained.get_latent_representation()
    for batch_size in (1, 7, 69, 1000):
        assert_alike(trained.get_latent_representation(batch_size=batch_size), whole)


@pytest.mark.usefixtures("settings_put_back")
def test_the_size_of_batches_is_that_of_the_settings(
    trained: SCVI, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    take = trained.rows.take
    monkeypatch.setattr(
        trained.rows, "take", lambda cells: (taken.append(len(cells)), take(cells))[1]
    )
    settings.batch_size = 30
    trained.get_latent_representation()
    trained.get_elbo(batch_size=64)
    assert taken == [30, 30, 10, 64, 6]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([70], "indices of cells from 0 to 69; got 1 other: '70'"),
        ([-71], "'-71'"),
        ([True, False], "one boolean for each of the 70 cells; got 2"),
        ([0.5], "integers, a mask or names"),
        ([], "indices of at least one cell; got none"),
        ([False] * 70, "indices of at least one cell; got none"),
    ],
)
def test_cells_that_are_not_there_are_refused(
    indices: list[Any], message: str, trained: SCVI
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        trained.get_latent_representation(indices=indices)


def test_unknown_names_are_refused_with_the_closest(trained: SCVI) -> None:
    with pytest.raises(UnknownKeyError, match=r"'Cell12'. Did you mean 'cell12'\?"):
        trained.get_elbo(indices=["cell0", "Cell12"])


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batches_of_no_cells_are_refused(batch_size: int, trained: SCVI) -> None:
    with pytest.raises(InvalidOptionError, match=f"batch_size of at least 1; got {batch_size}"):
        trained.get_latent_representation(batch_size=batch_size)

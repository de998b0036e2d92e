"""setup_anndata, and what making a model checks."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from anndata import AnnData

from cellvae.data import synthetic_iid
from cellvae.errors import (
    DataWarning,
    InvalidDataError,
    InvalidOptionError,
    NotSetUpError,
    UnknownKeyError,
    UnknownOptionError,
)
from cellvae.model import SCANVI, SCVI, AmortizedLDA


@pytest.mark.parametrize("wrong", ["x", None, np.ones((3, 3))])
def test_what_is_no_anndata_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidDataError, match=f"Expected an AnnData; got {type(wrong).__name__}"):
        SCVI.setup_anndata(wrong)
    with pytest.raises(InvalidDataError, match="Expected an AnnData"):
        SCVI(wrong)


def test_only_the_words_given_are_kept_and_nothing_else_changes(adata: AnnData) -> None:
    before = adata.copy()
    SCVI.setup_anndata(adata, batch_key="batch", continuous_covariate_keys=["age"])
    kwargs = {"batch_key": "batch", "continuous_covariate_keys": ["age"]}
    assert dict(adata.uns) == {"cellvae": {"SCVI": kwargs}}
    assert adata.obs.equals(before.obs)
    assert (adata.obs.dtypes == before.obs.dtypes).all()
    assert not adata.obsm
    assert not adata.layers
    assert np.array_equal(adata.X, before.X)


def test_set_up_and_making_a_model_leave_the_cells_alone(
    adata: AnnData, make: Callable[..., SCVI]
) -> None:
    before = adata.copy()
    make(adata, {"batch_key": "batch", "labels_key": "label"}, use_observed_lib_size=False)
    assert list(adata.uns) == ["cellvae"]
    assert adata.obs.equals(before.obs)
    assert not adata.obsm
    assert np.array_equal(adata.X, before.X)


@pytest.mark.skipif("beartype" in sys.modules, reason="checks of types draw numbers themselves")
def test_set_up_draws_no_global_random_numbers(adata: AnnData) -> None:
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    SCVI.setup_anndata(adata, batch_key="batch", labels_key="label", layer=None)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()


def test_a_second_set_up_replaces_the_first(adata: AnnData) -> None:
    SCVI.setup_anndata(adata, batch_key="batch")
    SCVI.setup_anndata(adata, labels_key="label")
    assert adata.uns["cellvae"]["SCVI"] == {"labels_key": "label"}


def test_a_copy_of_the_cells_is_set_up_too(adata: AnnData) -> None:
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata.copy(), n_hidden=8)
    assert model.registration.n_categories("batch") == 3


def test_words_survive_a_file(adata: AnnData, tmp_path: Path) -> None:
    kwargs = {
        "batch_key": "batch",
        "labels_key": "label",
        "size_factor_key": "size",
        "categorical_covariate_keys": ["donor"],
        "continuous_covariate_keys": ["age", "size"],
    }
    SCVI.setup_anndata(adata, **kwargs)
    made = SCVI(adata, n_hidden=8)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = SCVI(anndata.read_h5ad(tmp_path / "cells.h5ad"), n_hidden=8)
    assert again.registration == made.registration
    assert again.registration.keys.to_json() == kwargs


def test_setting_up_a_view_leaves_its_parent_alone(adata: AnnData) -> None:
    view = adata[10:40]
    SCVI.setup_anndata(view, batch_key="batch")
    assert SCVI(view, n_hidden=8).registration.n_cells == 30
    assert not adata.uns


def test_cells_that_were_not_set_up_are_refused(adata: AnnData) -> None:
    with pytest.raises(NotSetUpError, match=r"Call SCVI.setup_anndata\(adata, ...\) first"):
        SCVI(adata)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_key": "bach"}, r"'bach'. Did you mean 'batch'\?"),
        ({"labels_key": "Label"}, r"'Label'. Did you mean 'label'\?"),
        ({"continuous_covariate_keys": ["agee"]}, r"'agee'. Did you mean 'age'\?"),
        ({"layer": "counts"}, "got 'counts'. The layers are none"),
    ],
)
def test_columns_that_are_not_there_are_refused_at_once(
    adata: AnnData, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnknownKeyError, match=message):
        SCVI.setup_anndata(adata, **kwargs)
    assert not adata.uns


def test_a_text_where_a_list_belongs_is_refused(adata: AnnData) -> None:
    with pytest.raises(InvalidOptionError, match=r"Write categorical_covariate_keys=\['donor'\]"):
        SCVI.setup_anndata(adata, categorical_covariate_keys="donor")


@pytest.mark.parametrize(
    ("value", "name"), [(np.nan, "NaN"), (np.inf, "infinite"), (-1, "negative")]
)
def test_wrong_counts_are_refused_with_their_place(adata: AnnData, value: float, name: str) -> None:
    adata.X[3, 5] = value
    with pytest.raises(
        InvalidDataError, match=rf"1 {name} value, first in cell 'cell3', gene 'gene5'"
    ):
        SCVI.setup_anndata(adata)


def test_genes_of_one_name_are_refused(adata: AnnData) -> None:
    names = list(adata.var_names)
    adata.var_names = [names[1], *names[1:]]
    with pytest.raises(InvalidDataError, match="'gene1'"):
        SCVI.setup_anndata(adata)


def test_missing_batches_are_refused(adata: AnnData) -> None:
    adata.obs["batch"] = adata.obs["batch"].where(np.arange(adata.n_obs) > 0)
    with pytest.raises(InvalidDataError, match="1 missing, in cells 'cell0'"):
        SCVI.setup_anndata(adata, batch_key="batch")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"n_layer": 2}, r"SCVI\(\) has no option 'n_layer'. Did you mean 'n_layers'\?"),
        ({"nlatent": 2}, r"Did you mean 'n_latent'\?"),
        ({"zzz": 1}, "It has: batch_embedding_kwargs, batch_representation, "),
    ],
)
def test_unknown_options_are_refused_with_the_closest(
    adata: AnnData, option: dict[str, Any], message: str
) -> None:
    SCVI.setup_anndata(adata)
    with pytest.raises(UnknownOptionError, match=message):
        SCVI(adata, **option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"gene_likelihood": "nbb"},
            "to be 'zinb', 'nb', 'poisson' or 'normal'; got 'nbb'. Did you mean 'nb'",
        ),
        ({"dispersion": "genes"}, "'gene', 'gene-batch', 'gene-label' or 'gene-cell'; got 'genes'"),
        ({"latent_distribution": "log"}, "'normal' or 'ln'; got 'log'"),
        ({"use_batch_norm": True}, "'encoder', 'decoder', 'none' or 'both'; got True"),
        ({"batch_representation": "onehot"}, "Did you mean 'one-hot'"),
        ({"var_activation": "relu"}, "'exp' or 'softplus'; got 'relu'"),
        ({"n_latent": 0}, "n_latent to be at least 1 and at most 65536; got 0"),
        ({"n_latent": 2.5}, "n_latent to be a whole number; got 2.5"),
        ({"n_hidden": 10**12}, "at most 65536"),
        ({"n_layers": 129}, "n_layers to be at least 1 and at most 128; got 129"),
        ({"dropout_rate": 1}, "dropout_rate to be at least 0 and at most 0.999; got 1.0"),
        ({"dropout_rate": float("nan")}, "dropout_rate to be .* finite; got nan"),
        ({"encode_covariates": "yes"}, "encode_covariates to be True or False; got 'yes'"),
        ({"batch_embedding_kwargs": {"dim": 3}}, "has no option 'dim'. It has: embedding_dim"),
        (
            {"batch_embedding_kwargs": {"embedding_dim": 0}},
            "embedding_dim to be at least 1 ",
        ),
        ({"batch_embedding_kwargs": 5}, "batch_embedding_kwargs to be a dictionary or None; got 5"),
    ],
)
def test_values_that_cannot_be_are_refused_with_those_that_can(
    adata: AnnData, option: dict[str, Any], message: str
) -> None:
    SCVI.setup_anndata(adata)
    with pytest.raises((InvalidOptionError, UnknownOptionError), match=message):
        SCVI(adata, **option)


def test_options_may_be_numpy_values(adata: AnnData) -> None:
    SCVI.setup_anndata(adata)
    likelihood, width, share, flag = np.array(["nb"])[0], np.int64(8), np.float32(0.25), np.True_
    model = SCVI(
        adata,
        gene_likelihood=likelihood,
        n_hidden=width,
        dropout_rate=share,
        encode_covariates=flag,
    )
    config = model.config
    values = (
        config.gene_likelihood,
        config.n_hidden,
        config.dropout_rate,
        config.encode_covariates,
    )
    assert values == ("nb", 8, 0.25, True)
    assert list(map(type, values)) == [str, int, float, bool]


def test_size_factors_that_were_not_named_cannot_be_used(adata: AnnData) -> None:
    SCVI.setup_anndata(adata)
    with pytest.raises(InvalidOptionError, match="size_factor_key=..."):
        SCVI(adata, use_size_factor_key=True)


def warnings_of(adata: AnnData, **config: Any) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SCVI.setup_anndata(adata)
        SCVI(adata, n_hidden=8, **config)
    return caught


def test_counts_that_are_not_whole_are_warned_of_once_at_the_users_line(adata: AnnData) -> None:
    adata.X[0, 0] = 0.5
    (warning,) = warnings_of(adata)
    assert warning.category is DataWarning
    assert "SCVI.setup_anndata(adata, layer=...)" in str(warning.message)
    assert Path(warning.filename) == Path(__file__)


def test_values_that_are_not_whole_are_fine_for_a_normal_likelihood(adata: AnnData) -> None:
    adata.X[0, 0] = 0.5
    assert warnings_of(adata, gene_likelihood="normal") == []


def test_whole_numbers_of_any_type_are_counts(adata: AnnData) -> None:
    adata.X = adata.X.astype(np.float64)
    assert warnings_of(adata) == []


@pytest.mark.trains
def test_arrays_and_numbers_of_other_packages_are_taken_as_options() -> None:
    adata = synthetic_iid(batch_size=20, n_genes=6)
    SCANVI.setup_anndata(adata, "labels", "unknown")
    shares = np.full(3, 1 / 3, np.float32)
    for prior in (shares, torch.from_numpy(shares), shares.tolist()):
        assert SCANVI(adata, y_prior=prior).config.y_prior == pytest.approx((1 / 3,) * 3)
    model = SCANVI(
        adata,
        classifier_parameters={"n_layers": 2.0},
        batch_representation="embedding",
        batch_embedding_kwargs={"embedding_dim": np.int64(3)},
    )
    assert model.config.classifier_parameters == {"n_layers": 2}
    assert model.config.embedding_dim == 3
    with pytest.raises(InvalidOptionError, match="fractions above 0 that sum to 1"):
        SCANVI(adata, y_prior=(float("nan"), 0.5, 0.5))
    AmortizedLDA.setup_anndata(adata)
    config = AmortizedLDA(adata, n_topics=3, cell_topic_prior=np.ones(3)).config
    assert config.cell_topic_prior == (1.0, 1.0, 1.0)
    model = small_scvi(adata)
    assert model.get_latent_representation(batch_size=8.0).shape == (40, 10)
    assert model.get_marginal_ll(n_mc_samples=np.int64(2), batch_size=8.0) < 0
    with pytest.raises(InvalidOptionError, match="batch_size to be a whole number"):
        model.get_elbo(batch_size=2.5)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"plan_kwargs": {1: 2}}, "names of options of plan_kwargs; got 1"),
        ({"devices": 0}, "devices to be at least one; got 0"),
        ({"accumulate": {1: 0}}, "accumulate to name epochs from 0"),
        ({"accumulate_grad_batches": {1: 2}}, "accumulate={epoch: batches}"),
        ({"accumulate_grad_batches": "2"}, "accumulate_grad_batches to be a whole number; got '2'"),
        ({"max_time": 5}, "Trainer refused an argument"),
    ],
)
def test_words_of_training_that_cannot_be_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidOptionError, UnknownOptionError), match=message):
        small_scvi(synthetic_iid(batch_size=20, n_genes=6)).train(1, accelerator="cpu", **kwargs)


def small_scvi(adata: AnnData) -> SCVI:
    """Small SCVI, trained for a moment."""
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=4)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    return model

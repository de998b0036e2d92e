"""What a model says of itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from anndata import AnnData

from cellvae.errors import DataMismatchError
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def test_the_summary_names_options_set_up_and_training(
    adata: AnnData, make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    model = make(adata, {}, gene_likelihood="nb", encode_covariates=True)
    options = "n_hidden=8, n_latent=3, n_layers=1, dispersion='gene', gene_likelihood='nb'"
    assert repr(model).splitlines() == [
        "SCVI model of 70 cells x 12 genes",
        f"  options: {options}, encode_covariates=True",
        "  set up:  counts in X",
        "  trained: no",
    ]
    train(model, max_epochs=2, early_stopping=True)
    report = model.training_report
    last = repr(model).splitlines()[-1]
    score = f"elbo_validation {report.best_score:.2f}"
    assert last == f"  trained: 2 epochs, best epoch {report.best_epoch} ({score})"


def test_the_set_up_is_printed_with_its_categories(
    trained_with_everything: SCVI, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_with_everything.view_anndata_setup()
    shown = capsys.readouterr().out
    for text in (
        "SCVI: 70 cells x 12 genes",
        "batch_key",
        "obs['batch']",
        "3 categories",
        "whole numbers",
        "batch: obs['batch']",
        "obs['donor']",
        "b2",
    ):
        assert text in shown
    trained_with_everything.view_anndata_setup(hide_state_registries=True)
    assert "b2" not in capsys.readouterr().out


def test_columns_that_were_not_given_are_said_to_be_so(
    adata: AnnData, make: Callable[..., SCVI], capsys: pytest.CaptureFixture[str]
) -> None:
    adata.layers["raw"] = adata.X + 0.5
    model = make(adata, {"layer": "raw"}, gene_likelihood="normal")
    model.view_anndata_setup()
    shown = capsys.readouterr().out
    assert "layers['raw']" in shown
    assert "numbers that are not all whole" in shown
    assert "nothing" in shown
    assert "one category" in shown


def test_other_cells_are_checked_before_anything_is_printed(
    cells: Callable[..., AnnData], trained: SCVI, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.view_anndata_setup(cells())
    assert capsys.readouterr().out
    with pytest.raises(DataMismatchError, match="missing 'gene0'"):
        trained.view_anndata_setup(cells()[:, 1:].copy())
    assert not capsys.readouterr().out

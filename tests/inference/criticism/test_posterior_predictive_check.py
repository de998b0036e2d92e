"""Posterior predictive checks of models, and their report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import read_h5ad
from scipy import sparse, stats

from cellvae.errors import DataMismatchError, InvalidOptionError, NotTrainedError, UnknownKeyError
from cellvae.inference import PosteriorPredictiveCheck, create_criticism_report
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def dense_draws(model: SCVI, n: int) -> np.ndarray:
    """Draws of all counts by another way, [draws, cells, genes]."""
    batch = model.rows.take(torch.arange(60))
    with torch.inference_mode():
        return np.stack(
            [
                model.module.decode(model.module.encode(batch), batch)["rna"].sample().numpy()
                for _ in range(n)
            ]
        )


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
def test_statistics_are_those_of_draws_that_are_all_kept(
    trained: Callable[..., SCVI], likelihood: str
) -> None:
    model = trained(gene_likelihood=likelihood)
    torch.manual_seed(0)
    check = PosteriorPredictiveCheck(model.adata, {"a": model}, n_samples=150, batch_size=17)
    draws, counts = dense_draws(model, 150), model.adata.X.astype(float)
    genes, cells = (check.coefficient_of_variation(dim) for dim in ("cells", "features"))
    zeros = check.zero_fraction()
    assert list(genes.columns) == ["Raw", "a"]
    assert list(genes.index) == list(model.adata.var_names)
    assert list(cells.index) == list(model.adata.obs_names)
    np.testing.assert_allclose(genes["Raw"], stats.variation(counts, axis=0))
    np.testing.assert_allclose(cells["Raw"], stats.variation(counts, axis=1))
    np.testing.assert_allclose(zeros["Raw"], (counts == 0).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(genes["a"], stats.variation(draws, axis=1).mean(axis=0), rtol=0.15)
    with np.errstate(invalid="ignore"):
        of_cells = np.nanmean(draws.std(axis=2) / draws.mean(axis=2), axis=0)
    np.testing.assert_allclose(cells["a"], of_cells, rtol=0.15)
    np.testing.assert_allclose(zeros["a"], (draws == 0).mean(axis=(0, 1)), atol=0.02)
    assert set(check.metrics) == {"cv_gene", "cv_cell", "zero_fraction"}


def test_calibration_is_that_of_ranks_among_kept_draws(trained: Callable[..., SCVI]) -> None:
    model = trained()
    torch.manual_seed(0)
    check = PosteriorPredictiveCheck(model.adata, {"a": model}, n_samples=40)
    draws, counts = dense_draws(model, 40), model.adata.X
    below, equal = (draws < counts).sum(axis=0), (draws == counts).sum(axis=0)
    u = (below + np.random.default_rng(0).random(below.shape) * (equal + 1)) / 41
    table = check.calibration([0.2, 0.8])
    for level in (0.2, 0.8):
        assert table.loc[level, "a"] == pytest.approx((abs(2 * u - 1) < level).mean(), abs=0.06)
    error = check.calibration_error([0.1, 0.4, 0.6, 0.9], randomized=True)
    assert error["a"] == pytest.approx(((table["a"] - [0.2, 0.8]) ** 2).mean())
    one_sided = check.calibration_error([0.0, 0.3], randomized=True)
    assert one_sided["a"] == pytest.approx(((u < 0.3).mean() - 0.3) ** 2, abs=0.02)
    bounds = np.quantile(draws, [0.1, 0.9], axis=0)
    within = ((counts >= bounds[0]) & (counts <= bounds[1])).mean()
    assert check.calibration_error([0.1, 0.9])["a"] == pytest.approx((within - 0.8) ** 2, abs=0.02)
    assert set(check.metrics) == {"calibration", "calibration_curve"}
    assert check.metrics["calibration"].index.tolist() == ["features"]


def test_cells_and_layers_can_be_chosen(trained: Callable[..., SCVI]) -> None:
    model = trained()
    adata = model.adata.copy()
    adata.layers["twice"] = sparse.csr_matrix(adata.X * (1 + (np.arange(10) < 4)))
    check = PosteriorPredictiveCheck(
        adata, {"a": model}, count_layer_key="twice", n_samples=1, indices=[9, 4, 5, 6]
    )
    table = check.coefficient_of_variation("features")
    assert list(table.index) == ["cell9", "cell4", "cell5", "cell6"]
    expected = stats.variation(adata.layers["twice"].toarray()[[9, 4, 5, 6]], axis=1)
    np.testing.assert_allclose(table["Raw"], expected, rtol=1e-6)


def test_several_models_have_a_column_each(trained: Callable[..., SCVI]) -> None:
    models = {"zinb": trained(), "poisson": trained(gene_likelihood="poisson")}
    check = PosteriorPredictiveCheck(models["zinb"].adata, models, n_samples=2)
    assert list(check.zero_fraction().columns) == ["Raw", "zinb", "poisson"]
    table = check.differential_expression("label", n_samples=2)
    assert table[["model", "group"]].values.tolist() == [
        [model, group] for model in models for group in ("x", "y")
    ]
    assert table["gene_f1"].between(0, 1).all()
    assert table["n_cells"].tolist() == [30, 30] * 2
    # Two groups are each other's rest.
    np.testing.assert_allclose(table["lfc_mae"][0], table["lfc_mae"][1], rtol=1e-5)


def test_what_cannot_be_checked_is_refused(trained: Callable[..., SCVI]) -> None:
    model = trained()
    with pytest.raises(InvalidOptionError, match="at least one model"):
        PosteriorPredictiveCheck(model.adata, {})
    with pytest.raises(InvalidOptionError, match="other than 'Raw'"):
        PosteriorPredictiveCheck(model.adata, {"Raw": model})
    with pytest.raises(InvalidOptionError, match="n_samples to be at least 1; got 0"):
        PosteriorPredictiveCheck(model.adata, {"a": model}, n_samples=0)
    few = model.adata[:, :5].copy()
    SCVI.setup_anndata(few, batch_key="batch")
    with pytest.raises(DataMismatchError, match="same genes"):
        PosteriorPredictiveCheck(model.adata, {"a": model, "b": SCVI(few)})
    with pytest.raises(NotTrainedError):
        PosteriorPredictiveCheck(few, {"b": SCVI(few)})
    check = PosteriorPredictiveCheck(model.adata, {"a": model}, n_samples=1)
    with pytest.raises(InvalidOptionError, match="Did you mean 'cells'"):
        check.coefficient_of_variation("cell")
    with pytest.raises(InvalidOptionError, match="above 0 and below 1"):
        check.calibration([0.5, 1.0])
    for wrong in ([], [0.1], [0.1, 0.5, 0.9], [0.9, 0.1], [-0.1, 0.5]):
        with pytest.raises(InvalidOptionError, match="even number of rising quantiles"):
            check.calibration_error(wrong)
    with pytest.raises(InvalidOptionError, match="t-test, .*; got 'logreg'"):
        check.differential_expression("label", de_method="logreg")
    with pytest.raises(InvalidOptionError, match="from 1 to those of the check, 1; got 2"):
        check.differential_expression("label", n_samples=2)
    adata = model.adata.copy()
    adata.obs["rare"] = np.where(np.arange(60) == 0, "one", "others")
    adata.obs["same"] = "all"
    alone = PosteriorPredictiveCheck(adata, {"a": model}, n_samples=1)
    with pytest.raises(InvalidOptionError, match=r"at least two cells .* got one in one"):
        alone.differential_expression("rare")
    with pytest.raises(InvalidOptionError, match="at least two groups"):
        alone.differential_expression("same")
    with pytest.raises(InvalidOptionError, match=r"mdata\[modality\]"):
        PosteriorPredictiveCheck(adata, {"a": model}, modality="rna")
    with pytest.raises(AttributeError, match="posterior_predictive_sample"):
        alone.samples_dataset  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'metric'"):
        alone.metric  # noqa: B018
    with pytest.raises(UnknownKeyError, match="Did you mean 'label'"):
        check.differential_expression("labels")


def test_the_report_has_every_part_that_was_not_left_out(
    trained: Callable[..., SCVI], tmp_path: Path
) -> None:
    model = trained()
    adata = model.adata.copy()
    text = create_criticism_report(
        model, adata, n_samples=2, label_key="label", save_folder=tmp_path
    )
    for title in (
        "Calibration",
        "Coefficient of variation of genes",
        "Coefficient of variation of cells",
        "Fraction of zeros of genes",
        "Differential expression by label",
    ):
        assert f"## {title}" in text
    assert (tmp_path / "criticism_report.md").read_text() == text
    assert (tmp_path / "criticism_report.png").stat().st_size > 1000
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    tables = json.loads((tmp_path / "metrics.json").read_text())
    assert list(tables) == ["cell_wise_cv", "gene_wise_cv", "diff_exp"]
    assert "Validation" not in tables["cell_wise_cv"]
    assert tables["diff_exp"] in text
    assert adata.varm["lfc_raw"].shape == adata.varm["lfc_model"].shape == (10, 2)
    assert adata.varm["lfc_raw"].index.equals(adata.var_names)
    counts = adata.X
    shares = counts / counts.sum(axis=1, keepdims=True) * 1e4
    x, y = (np.expm1(np.log1p(shares[adata.obs["label"] == k]).mean(axis=0)) for k in "xy")
    np.testing.assert_allclose(adata.varm["lfc_raw"]["x"], np.log2(x / y), rtol=1e-3, atol=1e-5)
    assert adata.obs["cv_cell_ratio"].between(0.3, 0.95).all()
    short = create_criticism_report(
        model, skip_metrics=["calibration", "cv_cell", "cv_gene", "diff_exp"], n_samples=1
    )
    assert short.count("## ") == 1
    with pytest.raises(InvalidOptionError, match="Did you mean 'cv_gene'"):
        create_criticism_report(model, skip_metrics=["cv_genes"])


def test_the_report_of_the_own_cells_tells_training_from_validation(
    trained: Callable[..., SCVI], tmp_path: Path
) -> None:
    model = trained(setup={"labels_key": "label"})
    skipped = ["calibration", "zero_fraction", "cv_gene"]
    text = create_criticism_report(
        model, skip_metrics=skipped, n_samples=2, save_folder=tmp_path / "new", indices=range(40)
    )
    assert "## Differential expression by label" in text
    tables = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert tables["gene_wise_cv"] == ""
    assert tables["cell_wise_cv"].startswith("| Metric | Training Value | Validation Value |")
    ratio = model.adata.obs["cv_cell_ratio"]
    assert ratio[:40].notna().all() and ratio[40:].isna().all()
    assert "cv_gene_ratio" not in model.adata.var


def test_without_labels_groups_are_leiden_clusters(
    trained: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained()
    skipped = ["calibration", "cv_cell", "cv_gene", "zero_fraction"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "igraph", None)
        text = create_criticism_report(model, skip_metrics=skipped, n_samples=1)
        assert "Left out. Expected de_groupby=" in text and "pip install igraph" in text
    pytest.importorskip("igraph")
    check = PosteriorPredictiveCheck(model.adata, {"a": model}, n_samples=1)
    table = check.differential_expression()
    assert table["n_cells"].sum() == 60
    # The clusters are the two kinds of cells.
    assert table["lfc_pearson"].notna().all()


def test_a_trained_model_finds_the_genes_of_cell_types(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")[:800].copy()
    frequent = np.argsort(-np.asarray(adata.X.sum(axis=0)).ravel())[:250]
    adata = adata[:, frequent].copy()
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=64)
    kwargs = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False}
    model.train(max_epochs=40, plan_kwargs={"lr": 0.01}, **kwargs)
    torch.manual_seed(0)
    check = PosteriorPredictiveCheck(adata, {"scVI": model}, n_samples=5)
    assert check.zero_fraction().corr().iloc[0, 1] > 0.9
    assert check.calibration_error(randomized=True)["scVI"] < 0.01
    table = check.differential_expression("cell_type").set_index("group")
    monocytes = table.loc["CD14+ Mono"]
    assert monocytes["roc_auc"] > 0.75
    assert monocytes["lfc_pearson"] > 0.85
    assert monocytes["pr_auc"] > 0.6
    assert monocytes["gene_f1"] > 0.6
    assert monocytes["recall"] > 0.6

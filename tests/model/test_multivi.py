"""MULTIVI: set-up of AnnData and MuData, cells without a modality, questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from scipy.sparse import csr_matrix

from cellvae.errors import (
    DataWarning,
    InvalidDataError,
    InvalidOptionError,
    TrainingWarning,
    UnknownKeyError,
)
from cellvae.model import MULTIVI

N_CELLS, N_GENES, N_REGIONS, N_PROTEINS = 60, 12, 18, 4
CONFIG = {"n_hidden": 8, "n_latent": 3}


def make_tables() -> dict[str, AnnData]:
    """A table of each modality of the same cells."""
    rng = np.random.default_rng(0)
    kind = np.arange(N_CELLS) % 2
    obs = pd.DataFrame(
        {"batch": np.array(["a", "b", "c"])[np.arange(N_CELLS) % 3], "kind": kind.astype(str)},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    counts = {
        "rna": rng.poisson(rng.gamma(2.0, 3.0, (2, N_GENES))[kind]) + 1,
        "atac": rng.random((N_CELLS, N_REGIONS)) < rng.uniform(0.2, 0.9, (2, N_REGIONS))[kind],
        "protein": rng.poisson(rng.gamma(2.0, 8.0, (2, N_PROTEINS))[kind]) + 1,
    }
    return {
        name: AnnData(
            csr_matrix(values.astype(np.float32)),
            obs=obs.copy(),
            var=pd.DataFrame(index=[f"{name}{i}" for i in range(values.shape[1])]),
        )
        for name, values in counts.items()
    }


def make_mudata(modalities: Sequence[str] = ("rna", "atac", "protein"), **cells: Any) -> MuData:
    """MuData of some modalities, set up; each with the cells of a slice, or all."""
    tables = make_tables()
    # The first modality, which has all cells, gives their order.
    mdata = MuData(
        {name: tables[name][cells.get(name, slice(None))].copy() for name in modalities[::-1]}
    )
    obs = tables["rna"].obs.loc[mdata.obs_names]
    mdata.obs["batch"], mdata.obs["kind"] = obs["batch"], obs["kind"]
    MULTIVI.setup_mudata(
        mdata, batch_key="batch", modalities={f"{name}_layer": name for name in modalities}
    )
    return mdata


def make_anndata() -> AnnData:
    """The same cells as one matrix in which genes and regions are mixed, set up."""
    tables = make_tables()
    values = np.hstack([tables["rna"].X.toarray(), tables["atac"].X.toarray()])
    var = pd.DataFrame(
        {"feature_types": ["Gene Expression"] * N_GENES + ["Peaks"] * N_REGIONS},
        index=[*tables["rna"].var_names, *tables["atac"].var_names],
    )
    order = np.r_[N_GENES : N_GENES + 5, :N_GENES, N_GENES + 5 : N_GENES + N_REGIONS]
    adata = AnnData(values[:, order], obs=tables["rna"].obs, var=var.iloc[order])
    adata.obsm["protein"] = tables["protein"].to_df()
    MULTIVI.setup_anndata(adata, batch_key="batch", protein_expression_obsm_key="protein")
    return adata


def trained(cells: Any, **config: Any) -> MULTIVI:
    """Model after a short run, the same every time."""
    torch.manual_seed(0)
    model = MULTIVI(cells, **CONFIG, **config)
    model.train(2, seed=0, batch_size=20, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def model() -> MULTIVI:
    """Model of 60 cells: the last 20 have no regions, the first 20 no genes."""
    return trained(make_mudata(rna=slice(20, 60), atac=slice(0, 40)))


@pytest.mark.trains
def test_genes_and_regions_of_an_anndata_are_found_by_type_in_any_order() -> None:
    by_type, by_modality = trained(make_anndata()), trained(make_mudata())
    assert by_type.registration.axes == by_modality.registration.axes
    latent = by_type.get_latent_representation()
    np.testing.assert_array_equal(latent, by_modality.get_latent_representation())
    assert "layers" not in by_type.registration.fields["counts"].describe()[0]
    assert by_type.registration.fields["regions"].describe()[0] == "X, Peaks"


def test_an_anndata_without_types_is_refused() -> None:
    adata = make_tables()["rna"]
    with pytest.raises(UnknownKeyError, match=r"adata.var\['feature_types'\]"):
        MULTIVI.setup_anndata(adata)
    adata.var["feature_types"] = "genes"
    with pytest.raises(InvalidDataError, match="'Gene Expression' or 'Peaks'.*got 'genes'"):
        MULTIVI.setup_anndata(adata)


def test_modalities_without_a_table_are_refused() -> None:
    mdata = MuData(make_tables())
    with pytest.raises(InvalidOptionError, match="rna_layer"):
        MULTIVI.setup_mudata(mdata, modalities={"batch_key": "rna"})
    with pytest.raises(InvalidOptionError, match="Did you mean 'atac_layer'"):
        MULTIVI.setup_mudata(mdata, modalities={"atac_layr": "atac"})


@pytest.mark.trains
def test_weights_of_each_cell_mix_its_modalities() -> None:
    model = trained(make_mudata(), modality_weights="cell")
    assert model.module.mod_weights.shape == (N_CELLS, 3)
    with torch.no_grad():
        model.module.mod_weights.normal_()
    cells = np.array([40, 2, 17])
    weights = model.module.mod_weights.detach().softmax(dim=1).numpy()[cells]
    parts = [
        model.get_latent_representation(modality=name, indices=cells)
        for name in ("expression", "accessibility", "protein")
    ]
    expected = sum(weights[:, i : i + 1] * part for i, part in enumerate(parts))
    joint = model.get_latent_representation(indices=cells)
    np.testing.assert_allclose(joint, expected, atol=1e-5)
    elbo = model.get_elbo(indices=cells, return_mean=False)
    assert np.isfinite(elbo).all()


def test_numbers_of_features_that_are_given_are_those_of_the_data() -> None:
    mdata = make_mudata()
    model = MULTIVI(mdata, n_genes=N_GENES, n_regions=N_REGIONS)
    assert (model.n_genes, model.n_regions, model.n_proteins) == (N_GENES, N_REGIONS, N_PROTEINS)
    assert MULTIVI(mdata).n_genes == N_GENES
    with pytest.raises(InvalidOptionError, match="n_regions=18.*got 12"):
        MULTIVI(mdata, n_regions=N_GENES)


@pytest.mark.trains
def test_a_cell_with_one_modality_has_its_latent(model: MULTIVI) -> None:
    proteins = model.get_latent_representation(modality="protein")
    genes = model.get_latent_representation(modality="expression")
    regions = model.get_latent_representation(modality="accessibility")
    joint = model.get_latent_representation()
    np.testing.assert_allclose(joint[:20], (regions + proteins)[:20] / 2, atol=1e-5)
    np.testing.assert_allclose(joint[20:40], (genes + regions + proteins)[20:40] / 3, atol=1e-5)
    np.testing.assert_allclose(joint[40:], (genes + proteins)[40:] / 2, atol=1e-5)
    means, variances = model.get_latent_representation(modality="protein", return_dist=True)
    np.testing.assert_array_equal(means, proteins)
    assert (variances > 0).all()
    with pytest.raises(InvalidOptionError, match="modality"):
        model.get_latent_representation(modality="genes")


def decoded(model: MULTIVI) -> tuple[Any, Any]:
    """Latent and distributions of all cells at the mean of the posterior."""
    module = model.module
    batch = model.rows.take(torch.arange(N_CELLS))
    with torch.no_grad():
        latent = module.encode(batch)
        latent = latent._replace(sample=latent.posterior.loc)
        return latent, module.decode(latent, batch)


@pytest.mark.trains
def test_imputed_values_are_those_of_the_decoders(model: MULTIVI) -> None:
    latent, outputs = decoded(model)
    expression = model.get_normalized_expression(silent=True)
    np.testing.assert_allclose(expression, outputs["rna"].scale, rtol=1e-4)
    np.testing.assert_allclose(expression.sum(axis=1), 1, rtol=1e-5)
    one = model.get_normalized_accessibility(region_list=["atac3"], silent=True)
    np.testing.assert_allclose(
        one["atac3"], outputs["accessibility"].logits.sigmoid()[:, 3], rtol=1e-4
    )
    detection = model.get_normalized_accessibility(
        normalize_cells=True, normalize_regions=True, return_numpy=True, silent=True
    )
    np.testing.assert_allclose(detection, outputs["accessibility"].mean, rtol=1e-4)
    sizes = model.get_library_size_factors(silent=True)
    np.testing.assert_allclose(sizes["expression"], latent.log_library.exp()[:, 0], rtol=1e-4)
    np.testing.assert_allclose(sizes["accessibility"], latent.log_depth.exp()[:, 0], rtol=1e-4)
    factors = model.module.region_factors.detach().sigmoid()
    np.testing.assert_allclose(model.get_region_factors(), factors, rtol=1e-6)


@pytest.mark.trains
def test_samples_of_expression_are_averaged_on_request(model: MULTIVI) -> None:
    arguments: dict[str, Any] = {"n_samples": 6, "gene_list": ["rna4", "rna1"], "silent": True}
    samples = model.get_normalized_expression(use_z_mean=False, **arguments)
    assert samples.shape == (6, N_CELLS, 2)
    assert samples.std(axis=0).min() > 0
    means = model.get_normalized_expression(return_mean=True, **arguments)
    assert [*means.columns] == ["rna4", "rna1"]
    whole = model.get_normalized_expression(silent=True)
    np.testing.assert_allclose(means, whole[["rna4", "rna1"]], rtol=1e-4)
    drawn = model.get_normalized_expression(indices=[3, 5], n_samples_overall=40, silent=True)
    assert {*drawn.index} == {"cell3", "cell5"}
    assert len(drawn) == 40


@pytest.mark.trains
def test_foreground_of_proteins_is_decoded_at_the_mean_or_at_samples(model: MULTIVI) -> None:
    expected = 1 - decoded(model)[1]["protein"].mixture_logits.sigmoid()
    foreground = model.get_protein_foreground_probability(silent=True)
    np.testing.assert_allclose(foreground, expected, rtol=1e-4)
    arguments: dict[str, Any] = {"n_samples": 6, "return_mean": False, "silent": True}
    same = model.get_protein_foreground_probability(**arguments)
    np.testing.assert_allclose(same, np.tile(expected, (6, 1, 1)), rtol=1e-4)
    samples = model.get_protein_foreground_probability(use_z_mean=False, **arguments)
    assert samples.shape == (6, N_CELLS, N_PROTEINS)
    assert samples.std(axis=0).min() > 0
    few = model.get_protein_foreground_probability(
        indices=[5, 3], protein_list=[foreground.columns[1]], use_z_mean=False, silent=True
    )
    assert [*few.index] == ["cell5", "cell3"]
    assert [*few.columns] == [foreground.columns[1]]


@pytest.mark.trains
def test_statistics_of_counts_are_over_cells_that_were_measured(model: MULTIVI) -> None:
    arguments: dict[str, Any] = {"n_samples_overall": 50, "silent": True}
    genes = model.differential_expression(groupby="kind", group1="0", group2="1", **arguments)
    tables = make_tables()
    of_kind = (tables["rna"].obs["kind"] == "0").to_numpy()
    counts = tables["rna"].to_df()
    measured = np.arange(N_CELLS) >= 20
    np.testing.assert_allclose(
        genes["raw_mean1"], counts[of_kind & measured].mean()[genes.index], rtol=1e-5
    )
    regions = model.differential_accessibility(groupby="kind", group1="0", group2="1", **arguments)
    detected = tables["atac"].to_df()[of_kind & (np.arange(N_CELLS) < 40)].mean()
    np.testing.assert_allclose(regions["emp_prob1"], detected[regions.index], rtol=1e-5)
    assert regions["est_prob1"].between(0, 1).all()


@pytest.mark.trains
def test_one_modality_alone_works_and_others_are_refused() -> None:
    model = trained(make_mudata(["rna"]))
    assert model.get_normalized_expression(silent=True).shape == (N_CELLS, N_GENES)
    for ask in (
        model.get_normalized_accessibility,
        model.differential_accessibility,
        model.get_region_factors,
    ):
        with pytest.raises(InvalidOptionError, match="regions of chromatin; this one has 'genes'"):
            ask()
    with pytest.raises(InvalidOptionError, match="proteins"):
        model.get_protein_foreground_probability()
    assert [*model.get_library_size_factors(silent=True)] == ["expression"]
    regions = trained(make_mudata(["atac"]))
    assert regions.get_normalized_accessibility(silent=True).shape == (N_CELLS, N_REGIONS)
    with pytest.raises(InvalidOptionError, match="genes; this one has 'regions'"):
        regions.get_normalized_expression()


@pytest.mark.trains
def test_a_saved_model_answers_alike(model: MULTIVI, tmp_path: Path) -> None:
    model.save(tmp_path / "of_mudata")
    again = MULTIVI.load(tmp_path / "of_mudata", model.adata)
    latent = model.get_latent_representation()
    np.testing.assert_array_equal(latent, again.get_latent_representation())
    assert again.registration == model.registration


@pytest.mark.trains
def test_training_defaults_are_those_of_peakvi() -> None:
    cells = make_mudata()
    defaults = MULTIVI(cells, **CONFIG).train_defaults({})
    plan = {"optimizer": "AdamW", "lr": 1e-4, "weight_decay": 1e-3, "eps": 1e-8}
    assert defaults["max_epochs"] == 500
    assert defaults["plan_kwargs"] == {**plan, "n_epochs_kl_warmup": 50}
    assert defaults["early_stopping"] is True
    assert defaults["early_stopping_patience"] == 50
    assert defaults["early_stopping_monitor"] == "reconstruction_loss_validation"
    assert MULTIVI(cells, **CONFIG).module.adversarial
    assert not MULTIVI(cells, fully_paired=True, **CONFIG).module.adversarial


@pytest.mark.trains
def test_the_density_of_cells_is_that_of_their_joint_posteriors(model: MULTIVI) -> None:
    cells = np.arange(0, N_CELLS, 7)
    mean, variance = model.get_latent_representation(indices=cells, return_dist=True)
    z = torch.linspace(-1, 1, 3).expand(2, 3) * torch.tensor([[1.0], [-0.5]])
    scale = torch.from_numpy(variance).sqrt()
    parts = torch.distributions.StudentT(3.0, torch.from_numpy(mean), scale).log_prob(z[:, None])
    expected = parts.sum(dim=-1).logsumexp(dim=-1) - np.log(len(cells))
    density = model.get_aggregated_posterior(indices=cells, silent=True)
    torch.testing.assert_close(density.log_prob(z), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.trains
def test_a_query_is_given_the_features_of_the_reference(model: MULTIVI) -> None:
    query = make_mudata()
    names = model.prepare_query_mudata(query, model, return_reference_var_names=True)
    assert {name: len(features) for name, features in names.items()} == {
        "rna": N_GENES, "atac": N_REGIONS, "protein": N_PROTEINS,
    }  # fmt: skip
    tables = {name: query[name][:, ::-1].copy() for name in query.mod}
    tables["atac"] = tables["atac"][:, :-2].copy()
    cells = MuData(tables)
    with pytest.warns(DataWarning, match="16 of the 18 regions"):
        mapped = MULTIVI.prepare_query_mudata(cells, model, inplace=False)
    assert [*mapped["rna"].var_names] == [*names["rna"]]
    np.testing.assert_array_equal(mapped["rna"].X.toarray(), query["rna"].X.toarray())
    assert not mapped["atac"].X[:, :2].sum()


def test_adversarial_mixing_is_the_classifier_of_batches() -> None:
    mdata = make_mudata()
    model = MULTIVI(mdata, **CONFIG)

    def scale_of(model: MULTIVI, **kwargs: Any) -> Any:
        return model.parse_train_kwargs(kwargs).options.adversarial

    assert scale_of(model, adversarial_mixing=False) == scale_of(
        model, adversarial_classifier=False
    )
    assert scale_of(model, adversarial_mixing=True) == scale_of(model, adversarial_classifier=True)
    MULTIVI.setup_mudata(mdata, modalities={"rna_layer": "rna"})
    one_batch = MULTIVI(mdata, **CONFIG)
    assert scale_of(one_batch, adversarial_mixing=True) == scale_of(one_batch)
    with pytest.raises(InvalidOptionError, match="adversarial_classifier"):
        scale_of(model, adversarial_mixing="yes")


@pytest.mark.trains
def test_a_run_stops_by_the_reconstruction_of_validation_cells() -> None:
    model = MULTIVI(make_mudata(), **CONFIG)
    kwargs: dict[str, Any] = {"seed": 0, "accelerator": "cpu", "enable_progress_bar": False}
    model.train(40, early_stopping_patience=2, early_stopping_min_delta=1e6, **kwargs)
    report = model.training_report
    assert report.monitor == "reconstruction_loss_validation"
    assert len(model.history.epochs) < 40
    losses = model.history["reconstruction_loss_validation"].to_numpy().ravel()
    parts = [
        model.history[f"reconstruction_loss_{name}_validation"].to_numpy().ravel()
        for name in ("expression", "accessibility", "protein")
    ]
    np.testing.assert_allclose(sum(parts), losses, rtol=1e-5)


@pytest.mark.trains
def test_without_validation_cells_there_is_one_warning() -> None:
    model = MULTIVI(make_mudata(), **CONFIG)
    with pytest.warns(TrainingWarning, match="will not stop early") as caught:
        model.train(2, train_size=1.0, seed=0, accelerator="cpu", enable_progress_bar=False)
    assert len(caught) == 1
    assert len(model.history.epochs) == 2
    silent = MULTIVI(make_mudata(), **CONFIG).train_defaults(
        {"train_size": 1.0, "early_stopping": False}
    )
    assert not {"early_stopping", "early_stopping_monitor"} & {*silent}


@pytest.mark.trains
@pytest.mark.parametrize("modalities", [["rna", "atac"], ["rna"]])
@pytest.mark.parametrize("batch", ["one", "three"])
def test_a_classifier_is_trained_only_where_something_is_mixed(
    modalities: list[str], batch: str
) -> None:
    mdata = make_mudata(modalities)
    if batch == "one":
        mdata.obs["batch"] = "a"
        MULTIVI.setup_mudata(
            mdata, batch_key="batch", modalities={f"{name}_layer": name for name in modalities}
        )
    model = MULTIVI(mdata, **CONFIG)
    model.train(2, seed=0, batch_size=20, accelerator="cpu", enable_progress_bar=False)
    expected = batch == "three" and len(modalities) == 2
    assert ("adversarial_loss_train" in model.history.names) == expected
    assert all(np.isfinite(model.history[name]).to_numpy().all() for name in model.history.names)


@pytest.mark.trains
def test_tables_of_features_are_those_of_whole_matrices(model: MULTIVI) -> None:
    tables = model.feature_tables(None, np.arange(10, 50))
    regions = tables["The 18 regions that differ most"]
    whole = model.get_normalized_accessibility(indices=np.arange(10, 50), silent=True)
    assert regions["standard deviation"].is_monotonic_decreasing
    for column, wanted in (
        ("mean accessibility", whole.mean()),
        ("standard deviation", whole.std(ddof=0)),
    ):
        np.testing.assert_allclose(regions[column], wanted[regions.index], rtol=1e-3, atol=1e-6)
    factors = pd.Series(model.get_region_factors(), index=whole.columns)
    np.testing.assert_allclose(regions["region factor"], factors[regions.index], rtol=1e-5)
    proteins = tables["Proteins"]
    assert proteins.index.tolist() == [f"protein{i}" for i in range(N_PROTEINS)]
    assert (proteins["panels that measured it"] == 3).all()
    assert proteins["cells with foreground"].between(0, 1).all()
    cells = model.cell_tables()
    sizes = model.get_library_size_factors(silent=True)
    np.testing.assert_array_equal(
        cells["library_size_factors"]["accessibility"], sizes["accessibility"]
    )
    assert cells["protein_foreground_probability"].shape == (N_CELLS, N_PROTEINS)

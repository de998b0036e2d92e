"""What a network in evaluation mode says of cells, beside what scvi-tools says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from cellvae.contracts import CountLatent
from cellvae.model.components.library_prior import library_stats_by_batch


def assert_within(ours: Tensor, theirs: Tensor, relative: float) -> None:
    """Check that no number deviates by more than this share of it."""
    assert_allclose(ours.numpy(), theirs.numpy(), rtol=relative, atol=1e-5)


@torch.no_grad()
def encoded(case: Any) -> CountLatent:
    """Latent of the cells of a case."""
    return case.module(dropout_rate=0.1).eval().encode(case.batch())


def test_there_is_a_case_for_every_likelihood_and_dispersion(pinned_cases: list[Any]) -> None:
    options = [
        {"gene_likelihood": "zinb", "dispersion": "gene"} | c.about["config"] for c in pinned_cases
    ]
    found = {(option["gene_likelihood"], option["dispersion"]) for option in options}
    dispersions = ("gene", "gene-batch", "gene-label", "gene-cell")
    wanted = {("poisson", "gene"), *product(("zinb", "nb", "normal"), dispersions)}
    assert wanted <= found


def test_the_tensors_left_out_are_those_without_effect(case: Any) -> None:
    """Those of scvi-tools that never get a gradient are those that cellvae does not make."""
    idle = case.without_effect()
    assert set(case.names("parameters")) - set(case.names("trained")) == {
        name for name in idle if name in case.names("parameters")
    }
    made = {k for k, v in case.module().state_dict().items() if v.is_floating_point()}
    assert made == set(case.names("shapes")) - idle


@pytest.mark.usefixtures("same_noise")
def test_mean_variance_and_draw_of_the_latent_are_those_of_scvi_tools(case: Any) -> None:
    latent = encoded(case)
    for ours, name in (
        (latent.posterior.mean, "mean"),
        (latent.posterior.variance, "variance"),
        (latent.sample, "z"),
    ):
        # Variances reach 75, where single precision has steps of 8e-6.
        assert_allclose(ours.numpy(), case.values[name].numpy(), rtol=5e-7, atol=1e-5)


@pytest.mark.usefixtures("same_noise")
def test_sizes_of_cells_are_those_of_scvi_tools(case: Any) -> None:
    latent, theirs = encoded(case), case.values["library"]
    # scvi-tools takes the logarithm of zero where a cell has no counts.
    known = theirs.isfinite()
    assert_allclose(latent.log_library[known].numpy(), theirs[known].numpy(), rtol=0, atol=1e-5)
    assert latent.log_library.isfinite().all()
    assert (latent.log_library[~known] < -18).all()


@pytest.mark.usefixtures("same_noise")
def test_posterior_of_the_library_is_that_of_scvi_tools(case: Any) -> None:
    posterior = encoded(case).log_library_posterior
    assert (posterior is None) == ("library_mean" not in case.values)
    if posterior is not None:
        for ours, name in ((posterior.mean, "mean"), (posterior.variance, "variance")):
            theirs = case.values[f"library_{name}"].numpy()
            assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("same_noise")
@torch.no_grad()
def test_expression_and_its_share_are_those_of_scvi_tools(case: Any) -> None:
    module = case.module(dropout_rate=0.1).eval()
    counts = module.decode(module.encode(case.batch()), case.batch())["rna"]
    assert_within(counts.get_normalized("scale"), case.values["scale"], 1e-4)
    assert_within(counts.get_normalized("mu"), case.values["rate"], 1e-4)


@pytest.mark.usefixtures("same_noise")
@torch.no_grad()
def test_loss_of_every_cell_is_that_of_scvi_tools(case: Any) -> None:
    module, batch = case.module(dropout_rate=0.1).eval(), case.batch()
    loss = module.loss(batch, torch.tensor(case.about["kl_weight"]))
    kl_library = module.kl_library(module.encode(batch), batch)
    assert_within(loss.total_reconstruction, case.values["reconstruction"], 1e-4)
    assert_within(loss.total_kl, case.values["kl_z"] + case.values["kl_library"], 1e-4)
    assert_within(kl_library, case.values["kl_library"], 1e-4)
    assert_within(loss.loss, case.values["loss"], 1e-4)


@dataclass(frozen=True)
class RowsOfCase:
    """All cells of the pinned inputs."""

    case: Any
    n_cells: int

    def __len__(self) -> int:
        return self.n_cells

    def take(self, cells: Tensor) -> Any:
        return self.case.batch(cells)


def test_prior_of_the_library_is_that_of_scvi_tools(pinned_cases: list[Any]) -> None:
    n_cells = max(case.about["n_cells"] for case in pinned_cases)
    case = next(c for c in pinned_cases if "library_log_means" in c.weights())
    means, variances = library_stats_by_batch(
        RowsOfCase(case, n_cells), case.about["sizes"]["n_batch"]
    )
    assert_within(means, case.weights()["library_log_means"], 1e-6)
    assert_within(variances, case.weights()["library_log_vars"], 1e-6)

"""Distribution of fold changes against torch in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from cellvae.kernels import log_fold_change_summary


@pytest.mark.parametrize("n_draws", [1, 2, 999, 1000])
@pytest.mark.parametrize("n_genes", [1, 16, 203])
def test_every_column_is_that_of_torch(n_draws: int, n_genes: int) -> None:
    torch.manual_seed(0)
    first, second = (torch.rand(n_draws, n_genes).pow(4) * 1e-3 for _ in range(2))
    pseudocount, delta = 1e-7, 0.25

    found = log_fold_change_summary(first, second, pseudocount, delta)

    one, other = first.double() + pseudocount, second.double() + pseudocount
    changes = one.log2() - other.log2()
    expected = {
        "mean": changes.mean(0),
        "median": changes.quantile(0.5, dim=0),
        "std": changes.std(0, correction=0),
        "min": changes.amin(0),
        "max": changes.amax(0),
        "up": (changes >= delta).double().mean(0),
        "down": (changes < -delta).double().mean(0),
    }
    for name, values in expected.items():
        torch.testing.assert_close(getattr(found, name), values, rtol=1e-5, atol=3e-6)


def test_draws_that_are_all_alike_have_no_spread() -> None:
    found = log_fold_change_summary(torch.full((50, 3), 0.4), torch.full((50, 3), 0.1), 1e-10, 1.0)

    assert found.median.tolist() == pytest.approx([2.0] * 3, rel=1e-6)
    assert found.std.tolist() == [0.0] * 3
    assert found.up.tolist() == [1.0] * 3
    assert found.down.tolist() == [0.0] * 3


def test_one_outlier_does_not_hide_the_median() -> None:
    torch.manual_seed(1)
    first, second = torch.rand(1001, 2) + 1, torch.rand(1001, 2) + 1
    first[0, 0] = 1e30

    found = log_fold_change_summary(first, second, 1e-10, 0.1)

    expected = (first.double().log2() - second.double().log2()).quantile(0.5, dim=0)
    torch.testing.assert_close(found.median, expected, rtol=1e-5, atol=1e-6)


def test_a_gene_with_nan_is_nan_and_others_are_not() -> None:
    first, second = torch.rand(20, 4), torch.rand(20, 4)
    first[7, 2] = math.nan

    found = log_fold_change_summary(first, second, 1e-6, 0.1)

    for column in found:
        assert torch.isnan(column).tolist() == [False, False, True, False]

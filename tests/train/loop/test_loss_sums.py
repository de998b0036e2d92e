"""Sums of the loss over an epoch."""

from __future__ import annotations

import pytest
import torch

from cellvae.contracts import Loss
from cellvae.train.loop.loss_sums import MAX_PENDING, LossSums


def single_part_loss(loss: float, reconstruction: torch.Tensor, kl: torch.Tensor) -> Loss:
    """Loss with one part of each kind."""
    return Loss(torch.tensor(loss), {"rna": reconstruction}, {"kl_z": kl}, torch.tensor(0.0))


def test_means_are_those_over_all_cells_whatever_the_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    reconstruction = torch.rand(10, generator=generator) * 100
    kl = torch.rand(10, generator=generator)
    tally = LossSums(
        "validation",
        lambda sums: {"accuracy": sums[0] / sums[1].sum()},
        loss_parts=("protein", "kl_z"),
    )
    for cells in (slice(0, 4), slice(4, 8), slice(8, 10)):
        objective = (reconstruction[cells] + 0.3 * kl[cells]).mean()
        tally.add(
            Loss(
                objective,
                {"rna": reconstruction[cells] / 4, "protein": reconstruction[cells] * 3 / 4},
                {"kl_z": kl[cells]},
                torch.tensor(6.0),
                (reconstruction[cells].sum(), torch.ones_like(kl[cells]).sum().expand(2) / 2),
            )
        )
    means = {name: float(value) for name, value in tally.means().items()}
    assert means["reconstruction_loss_validation"] == pytest.approx(float(reconstruction.mean()))
    assert means["protein_validation"] == pytest.approx(float(reconstruction.mean()) * 3 / 4)
    assert means["kl_z_validation"] == means["kl_local_validation"]
    assert means["kl_local_validation"] == pytest.approx(float(kl.mean()))
    assert means["kl_global_validation"] == pytest.approx(6.0)
    assert means["elbo_validation"] == pytest.approx(float((reconstruction + kl).mean()) + 6.0 / 10)
    assert means["validation_loss"] == pytest.approx(float((reconstruction + 0.3 * kl).mean()))
    assert means["validation_accuracy"] == pytest.approx(float(reconstruction.mean()))


def test_many_batches_lose_no_precision() -> None:
    tally = LossSums("train")
    one = Loss(
        torch.tensor(1000.1),
        {"rna": torch.full((128,), 1000.1)},
        {"kl_z": torch.full((128,), 0.01)},
        torch.tensor(0.0),
    )
    for _ in range(20_000):
        tally.add(one)
    assert float(tally.means()["reconstruction_loss_train"]) == pytest.approx(1000.1, rel=1e-7)


def test_cleared_sums_are_zero() -> None:
    tally = LossSums("train")
    tally.add(single_part_loss(1.0, torch.ones(2), torch.ones(2)))
    tally.clear()
    tally.add(single_part_loss(3.0, torch.full((1,), 3.0), torch.zeros(1)))
    assert float(tally.means()["elbo_train"]) == 3.0


@pytest.mark.parametrize("only_finite", [True, False])
def test_batches_added_together_have_the_sums_of_one_after_the_other(only_finite: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    # More batches than are added at once; the last one of an epoch is smaller.
    sizes = [32] * (2 * MAX_PENDING + 3) + [5]
    losses = []
    for i, size in enumerate(sizes):
        reconstruction, kl = torch.rand(2, size, generator=generator) * 100
        wrong = only_finite and i in (7, len(sizes) - 2)
        loss = float("nan") if wrong else float(reconstruction.mean())
        losses.append(single_part_loss(loss, reconstruction, kl))
    together, each = LossSums("train"), LossSums("train")
    each.add_at_once(enabled=True)
    for tally in (together, each):
        tally.only_finite = only_finite
        for _ in range(2):
            tally.clear()
            for loss in losses:
                tally.add(loss)
            assert bool(tally.pending) == (tally is together)
    expected = sum(n for i, n in enumerate(sizes) if not (only_finite and i in (7, len(sizes) - 2)))
    assert together.sums is not None and float(together.sums[4]) == expected
    assert not together.pending
    torch.testing.assert_close(together.sums, each.sums, rtol=1e-14, atol=0)
    assert together.means().keys() == each.means().keys()


def test_further_sums_are_left_out_with_their_own_batch() -> None:
    values = torch.ones(4)
    bad = single_part_loss(float("nan"), values, values)
    good = single_part_loss(1.0, values, values)._replace(extra_metrics=(torch.tensor(3.0),))
    tally = LossSums("train", lambda sums: {"accuracy": sums[0]})
    tally.only_finite = True
    # The first batch, which has none, is not finite; both are added together.
    for loss in (bad, good):
        tally.add(loss)
    assert float(tally.means()["train_accuracy"]) == 3.0
    worse = bad._replace(extra_metrics=(torch.tensor(5.0),))
    for loss in (good._replace(extra_metrics=()), worse):
        tally.add(loss)
    assert float(tally.means()["train_accuracy"]) == 3.0

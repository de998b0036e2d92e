"""Metrics of torchmetrics, and the run they leave as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torchmetrics import MeanMetric, MeanSquaredError, PearsonCorrCoef
from torchmetrics.classification import MulticlassConfusionMatrix

from cellvae.data import Split
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.model.scvi import SCVIModule
from cellvae.train import EarlyStopping
from cellvae.train.callbacks.evaluation.metric_callback import MetricCallback
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


def train(
    module: Any, rows: Any, split: Split, *callbacks: pl.Callback, **kwargs: Any
) -> RunResult:
    given = {"max_epochs": 3, "enable_progress_bar": False, "batch_size": 16} | kwargs
    parsed = parse_train_kwargs({**given, "callbacks": list(callbacks)})
    outcome = fit(module, rows, split, parsed.options, seed=1, callbacks=parsed.callbacks)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def depth(module: Any, batch: Any) -> tuple[torch.Tensor]:
    """Counts of each cell: the same in every epoch."""
    return (batch.counts.sum(-1),)


def rebuilt(module: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts that the network expects, and those there are, on a logarithmic scale."""
    latent = module.encode(batch)
    mean = module.decode(latent, batch)["rna"].mean
    return mean.log1p().flatten(), batch.counts.log1p().flatten()


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in module.state_dict().values()])


@pytest.mark.parametrize("on", ["train", "validation"])
def test_every_cell_of_the_split_counts_once(
    module: SCVIModule, rows: Any, split: Split, on: Any
) -> None:
    callback = MetricCallback({"depth": MeanMetric()}, on=on, prediction=depth)
    outcome = train(module, rows, split, callback)
    cells = torch.from_numpy(split.train if on == "train" else split.validation)
    expected = float(rows.take(cells).counts.sum(-1).mean())
    assert outcome.history[f"depth_{on}"][f"depth_{on}"].tolist() == pytest.approx([expected] * 3)


def test_the_value_is_that_of_the_weights_of_the_epoch(
    module: SCVIModule, rows: Any, split: Split
) -> None:
    def means(module: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return module.encode(batch).posterior.mean.flatten(), batch.counts[:, :2].flatten()

    callback = MetricCallback({"mse": MeanSquaredError()}, prediction=means, prefix="own")
    outcome = train(module, rows, split, callback)
    with torch.no_grad():
        z, counts = means(module, rows.take(torch.from_numpy(split.validation)))
    expected = float(((z - counts) ** 2).mean())
    assert outcome.history["own/mse_validation"].iloc[-1, 0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("on", ["train", "validation"])
def test_training_is_not_changed_by_one_bit(rows: Any, split: Split, module: Any, on: Any) -> None:
    start = {k: v.clone() for k, v in module.state_dict().items()}
    callback = MetricCallback({"r": PearsonCorrCoef()}, on=on, prediction=rebuilt)
    found = []
    for callbacks in ((), (callback,)):
        module.load_state_dict(start)
        torch.manual_seed(4)
        outcome = train(module, rows, split, *callbacks, check_val_every_n_epoch=1)
        found.append((weights(module), outcome.history["elbo_validation"], torch.rand(2)))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1].equals(found[1][1])
    assert torch.equal(found[0][2], found[1][2])


@pytest.mark.parametrize("stopper_first", [True, False])
def test_it_is_monitored_in_the_same_epoch_and_turns_validation_on(
    module: Any, rows: Any, split: Split, stopper_first: bool
) -> None:
    callback = MetricCallback({"mse": MeanSquaredError()}, prediction=rebuilt)
    stop = EarlyStopping("mse_validation", patience=50)
    callbacks = (stop, callback) if stopper_first else (callback, stop)
    outcome = train(module, rows, split, *callbacks, max_epochs=6)
    values = outcome.history["mse_validation"]["mse_validation"]
    assert len(values) == 6
    assert outcome.report.best_epoch == values.idxmin()


def test_epochs_without_validation_have_no_value(module: Any, rows: Any, split: Split) -> None:
    callback = MetricCallback({"depth": MeanMetric()}, prediction=depth)
    outcome = train(module, rows, split, callback, max_epochs=5, check_val_every_n_epoch=2)
    assert outcome.history["depth_validation"].index.tolist() == [1, 3]


def test_one_instance_serves_several_runs(module: Any, rows: Any, split: Split) -> None:
    metric = MeanMetric()
    metric.update(torch.tensor(1e9))
    callback = MetricCallback({"depth": metric}, on="train", prediction=depth)
    first = train(module, rows, split, callback).history["depth_train"]
    second = train(module, rows, split, callback).history["depth_train"]
    assert first.equals(second)
    assert float(first.iloc[0, 0]) < 1e3


def test_names_are_known_before_training() -> None:
    metrics = {"a": MeanMetric(), "b": MeanMetric()}
    assert MetricCallback(metrics, prediction=depth).produced_metrics() == [
        "a_validation",
        "b_validation",
    ]
    named = MetricCallback(metrics, on="train", prediction=depth, prefix="own")
    assert named.produced_metrics() == ["own/a_train", "own/b_train"]


def test_what_cannot_be_measured_is_refused(module: Any, rows: Any, split: Split) -> None:
    with pytest.raises(InvalidOptionError, match="'validation' or 'train'; got 'test'"):
        MetricCallback({"a": MeanMetric()}, on="test", prediction=depth)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="metrics by name"):
        MetricCallback({}, prediction=depth)
    bare = MetricCallback({"a": MeanMetric()}, prediction=lambda m, b: b.counts)
    with pytest.raises(InvalidOptionError, match="a tuple.*got Tensor"):
        train(module, rows, split, bare)
    table = MulticlassConfusionMatrix(2)
    codes = MetricCallback({"t": table}, prediction=lambda m, b: (b.batch[:, 0], b.batch[:, 0]))
    with pytest.raises(InvalidOptionError, match=r"'t' to compute one number; got shape \(2, 2\)"):
        train(module, rows, split, codes)
    everything = Split(train=split.train, validation=split.train[:0], test=split.train[:0])
    with pytest.raises(InvalidOptionError, match="no validation cells"):
        train(module, rows, everything, MetricCallback({"a": MeanMetric()}, prediction=depth))


def test_real_cells_are_rebuilt_better_after_training(shared_data: Path) -> None:
    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")
    chosen = np.random.default_rng(0).permutation(adata.n_obs)[:300]
    adata = adata[np.sort(chosen)].copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=32)
    callback = MetricCallback({"pearson": PearsonCorrCoef()}, prediction=rebuilt)
    kwargs = {"max_epochs": 6, "seed": 0, "accelerator": "cpu", "enable_progress_bar": False}
    model.train(callbacks=callback, plan_kwargs={"lr": 5e-3}, **kwargs)
    values = model.history["pearson_validation"]["pearson_validation"].to_numpy()
    assert values[-1] > max(values[0], 0.5)
    assert values[-1] < 1

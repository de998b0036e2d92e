"""Times, speeds and memory, against a clock of the test's own."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import pandas as pd
import pytest
import torch

from cellvae.contracts import StepBlock
from cellvae.data import Split
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train.callbacks.monitoring import resource_monitor as resources
from cellvae.train.callbacks.monitoring import resource_table as resource_rows
from cellvae.train.callbacks.monitoring.resource_monitor import RESOURCE_METRICS, ResourceMonitor
from cellvae.train.callbacks.monitoring.resource_table import (
    PHASES,
    count_cells,
    mean_std_text,
    rss_mib,
)
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


def outcome_of(
    module: Any, rows: Any, split: Split, *callbacks: pl.Callback, **kwargs: Any
) -> RunResult:
    given = {"max_epochs": 3, "enable_progress_bar": False, "batch_size": 10, "accelerator": "cpu"}
    parsed = parse_train_kwargs({**given, "callbacks": list(callbacks), **kwargs})
    return fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)


class Clock:
    """Clock that goes on only when it is told to, so that a busy machine changes nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sleeper(pl.Callback):
    """Lets 20 ms go by in one hook of each batch or epoch."""

    def __init__(self, hook: str, clock: Clock) -> None:
        self.hook, self.clock = hook, clock

    def nap(self, hook: str) -> None:
        if hook == self.hook:
            self.clock.now += 0.02

    def on_train_batch_start(self, *rest: Any) -> None:
        self.nap("forward")

    def on_before_zero_grad(self, *rest: Any) -> None:
        self.nap("forward end")

    def on_after_backward(self, *rest: Any) -> None:
        self.nap("backward")

    def on_before_optimizer_step(self, *rest: Any) -> None:
        self.nap("optimizer")

    def on_validation_epoch_end(self, *rest: Any) -> None:
        self.nap("validation")

    def on_epoch_complete(self, *rest: Any) -> None:
        self.nap("epoch_end")


@pytest.mark.parametrize(
    ("hook", "phase", "times"),
    [
        ("forward end", "forward", 5),
        ("backward", "backward", 5),
        ("optimizer", "optimizer", 5),
        ("validation", "validation", 1),
        ("epoch_end", "epoch_end", 1),
    ],
)
def test_time_is_counted_where_it_was_spent(
    module: Any,
    rows: Any,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
    hook: str,
    phase: str,
    times: int,
) -> None:
    clock, monitor = Clock(), ResourceMonitor()
    monkeypatch.setattr(time, "perf_counter", clock)
    outcome_of(module, rows, split, monitor, Sleeper(hook, clock), check_val_every_n_epoch=1)
    for row in monitor.rows:
        spent = {name: row[name] for name in PHASES}
        assert spent == pytest.approx({name: 0.02 * times * (name == phase) for name in PHASES})


def test_waiting_for_the_loader(
    module: Any, rows: Any, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellvae.data.batches.blocks import EpochBlocks

    iterate = EpochBlocks.__iter__

    def slowly(self: Any) -> Any:
        for block in iterate(self):
            time.sleep(0.01)
            yield block

    monkeypatch.setattr(EpochBlocks, "__iter__", slowly)
    monitor = ResourceMonitor()
    table = outcome_of(module, rows, split, monitor).history.table
    assert all(row["waiting"] > 0.05 - 0.005 for row in monitor.rows)
    row = monitor.rows[1]
    training = row["waiting"] + row["forward"] + row["backward"] + row["optimizer"]
    assert table["resources/waiting_share"][1] == pytest.approx(row["waiting"] / training)
    assert table["resources/cells_per_second"][1] == pytest.approx(50 / training, rel=1e-5)


def test_cells_that_are_taken_within_the_step_were_waited_for(
    module: Any, rows: Any, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = type(rows).take

    def slowly(self: Any, cells: Any) -> Any:
        time.sleep(0.01)
        return take(self, cells)

    monkeypatch.setattr(type(rows), "take", slowly)
    monitor = ResourceMonitor()
    outcome_of(module, rows, split, monitor)
    assert all(row["waiting"] > 0.01 * 3 for row in monitor.rows)


def test_history_and_table_say_the_same(
    module: Any, rows: Any, split: Split, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "resources.tsv"
    monitor = ResourceMonitor(path)
    began = time.perf_counter()
    history = outcome_of(module, rows, split, monitor).history.table
    passed = time.perf_counter() - began
    table = pd.read_csv(path, sep="\t")
    assert list(table.columns) == [*resource_rows.COLUMNS]
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["cells"].tolist() == [50, 50, 50]
    assert 0 < table["seconds"].sum() < passed
    assert table["seconds"].to_numpy() == pytest.approx(
        table[[*PHASES]].sum(axis=1).to_numpy(), rel=1e-4
    )
    for name in ("cells_per_second", "waiting_share", "rss_mib"):
        assert history[f"resources/{name}"].tolist() == pytest.approx(
            table[name].tolist(), rel=1e-4
        )
    # What comes after the metrics are read is in the table alone.
    assert all(history["resources/seconds"].to_numpy() <= table["seconds"].to_numpy() * 1.0001)
    assert 50 < table["rss_mib"].max() < 50_000
    assert [p.name for p in path.parent.iterdir()] == ["resources.tsv"]
    speed = 150 / sum(monitor.rows[i][p] for i in range(3) for p in PHASES[:4])
    assert f"{speed:,.0f} cells per second on CPU" in monitor.summary
    assert (
        f"backward {mean_std_text([row['backward'] for row in monitor.rows])} s" in monitor.summary
    )
    assert set(RESOURCE_METRICS) == {
        name for name in history.columns if name.startswith("resources/")
    }


def test_the_run_is_the_same_with_it(module: Any, rows: Any, split: Split) -> None:
    start = {k: v.clone() for k, v in module.state_dict().items()}
    plain = outcome_of(module, rows, split).history.table
    weights = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(start)
    watched = outcome_of(module, rows, split, ResourceMonitor()).history.table
    assert watched[plain.columns].equals(plain)
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())


def test_the_shortest_run_has_its_numbers(module: Any, rows: Any, split: Split) -> None:
    kwargs: dict[str, Any] = {"max_epochs": 1, "batch_size": 64, "log_every_n_steps": 10}
    history = outcome_of(module, rows, split, ResourceMonitor(), **kwargs).history.table
    assert all(history[name][0] >= 0 for name in RESOURCE_METRICS)
    assert history["resources/cells_per_second"][0] > 0


def test_one_monitor_for_two_runs(module: Any, rows: Any, split: Split) -> None:
    monitor = ResourceMonitor()
    for n_epochs in (3, 2):
        outcome_of(module, rows, split, monitor, max_epochs=n_epochs)
        assert len(monitor.rows) == n_epochs
        assert len(monitor.devices) == 1


@pytest.mark.parametrize("given", [True, False])
def test_memory_that_runs_out_is_told(
    module: Any,
    rows: Any,
    split: Split,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    given: bool,
) -> None:
    class Greedy(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
            if trainer.global_step == 7:
                raise torch.cuda.OutOfMemoryError("no more")

    path = tmp_path / "resources.tsv" if given else None
    with caplog.at_level(logging.ERROR, logger="cellvae"):
        outcome = outcome_of(module, rows, split, ResourceMonitor(path), Greedy())
    assert outcome.error is not None
    [line] = [r.getMessage() for r in caplog.records if "Out of memory" in r.getMessage()]
    assert line.startswith("Out of memory in epoch 1; ")
    assert (str(path) if given else "ResourceMonitor(path=...)") in line
    if path is not None:
        table = pd.read_csv(path, sep="\t")
        # The epoch that was cut short is there, with the batches that it had begun.
        assert table["cells"].tolist() in ([50, 20], [50, 30])


def test_a_table_that_cannot_be_written_ends_no_run(
    module: Any, rows: Any, split: Split, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monitor = ResourceMonitor(tmp_path / "file" / "resources.tsv")
    with caplog.at_level(logging.WARNING, logger="cellvae"):
        assert outcome_of(module, rows, split, monitor).error is None
    assert "could not be written" in caplog.text
    with pytest.raises(InvalidOptionError, match="is a folder"):
        ResourceMonitor(tmp_path)


def test_the_table_is_written_within_the_run(
    module: Any, rows: Any, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "WRITE_SECONDS", -1.0)
    path, lengths = tmp_path / "resources.tsv", []

    class Reader(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
            if path.exists():
                lengths.append(len(path.read_text().splitlines()) - 1)

    outcome_of(module, rows, split, ResourceMonitor(path), Reader())
    assert lengths == [0] * 5 + [1] * 5 + [2] * 5


def test_a_bare_trainer(tmp_path: Path) -> None:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    cells = torch.utils.data.TensorDataset(torch.ones(10, 1))
    loader = torch.utils.data.DataLoader(cells, batch_size=4)
    monitor = ResourceMonitor(tmp_path / "resources.tsv")
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=[monitor],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    from cellvae.train.loop.lightning_quiet import quiet_lightning

    with quiet_lightning():
        trainer.fit(Line(), loader)
    assert [row["cells"] for row in monitor.rows] == [10, 10]
    assert trainer.callback_metrics["resources/cells_per_second"] > 0
    assert len((tmp_path / "resources.tsv").read_text().splitlines()) == 3


def test_cells_of_a_batch() -> None:
    assert count_cells(StepBlock(None, torch.zeros(1, 7, dtype=torch.int64))) == 7  # type: ignore[arg-type]
    assert count_cells({"x": ["name", torch.zeros(3, 2)]}) == 3
    assert count_cells("nothing") == 0


def test_memory_where_the_system_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    now = rss_mib()
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert rss_mib() > 0
    monkeypatch.setattr(resource_rows, "find_spec", lambda name: None)
    assert rss_mib() != rss_mib()
    assert now > 50


def test_spread() -> None:
    assert mean_std_text([1.0, 2.0, 3.0]) == "2.0000 ± 1.0000 [3]"
    assert mean_std_text([0.5]) == "0.5000 ± 0.0000 [1]"


def test_real_cells_and_a_run_that_goes_on(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[:300].copy()
    SCVI.setup_anndata(adata, batch_key="batch")

    class Broken(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    def trained(monitor: ResourceMonitor, *more: pl.Callback) -> SCVI:
        torch.manual_seed(0)
        model = SCVI(adata, n_hidden=16)
        kwargs: dict[str, Any] = {"run_dir": tmp_path / "run", "resume": "auto"}
        model.train(
            max_epochs=4,
            accelerator="cpu",
            enable_progress_bar=False,
            callbacks=[monitor, *more],
            **kwargs,
        )
        return model

    first = ResourceMonitor()
    monkeypatch.setattr(resources, "device_name", lambda device: "A")
    trained(first, Broken())
    monkeypatch.setattr(resources, "device_name", lambda device: "B")
    second = ResourceMonitor(tmp_path / "resources.tsv")
    model = trained(second, Sleeper("nothing", Clock()))
    assert model.training_report.resumed_epoch == 2
    assert [row["epoch"] for row in second.rows] == [0, 1, 2, 3]
    assert second.summary.endswith("on A then B")
    for name in ("waiting", "forward", "backward", "optimizer", "validation"):
        assert second.rows[1][name] == first.rows[1][name]
    table = pd.read_csv(tmp_path / "resources.tsv", sep="\t")
    n_train = len(model.train_indices)
    assert table["cells"].tolist() == [n_train] * 4
    shown = model.history["resources/cells_per_second"].iloc[:, 0].tolist()
    assert shown == pytest.approx(table["cells_per_second"].tolist(), rel=1e-4)


@pytest.mark.gpu
def test_memory_of_a_gpu(module: Any, rows: Any, split: Split, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    path = tmp_path / "resources.tsv"
    history = outcome_of(module, rows, split, ResourceMonitor(path), accelerator="cuda").history
    table = pd.read_csv(path, sep="\t")
    assert (table["gpu_mib"] > 0).all()
    shown = history.table["resources/gpu_mib"].tolist()
    assert shown == pytest.approx(table["gpu_mib"].tolist(), rel=1e-4)

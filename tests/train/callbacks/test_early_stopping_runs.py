"""Early stopping in whole runs: several metrics, first epochs, runs that go on, real cells."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from cellvae.data import Split
from cellvae.errors import InvalidOptionError, TrainingError, TrainingWarning
from cellvae.model import SCVI
from cellvae.train import EarlyStopping
from cellvae.train.callbacks.early_stopping.stopping_rule import StopReason
from cellvae.train.callbacks.protocols import FollowsMetrics, Group, HasGroup
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


class Script(pl.Callback):
    """Logs metrics from lists; None is an epoch in which a metric is not logged."""

    def __init__(self, **values: list[float | None]) -> None:
        self.values = values

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, values in self.values.items():
            value = values[trainer.current_epoch]
            if value is not None:
                pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1)


class Promising(Script):
    """Says what it will log."""

    def produced_metrics(self) -> list[str]:
        return list(self.values)


class Recorder(pl.Callback):
    """Notes weights and state of another callback after each epoch, as files hold them."""

    def __init__(self, early: EarlyStopping) -> None:
        self.early = early
        self.weights: list[torch.Tensor] = []
        self.states: list[bytes] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        file = io.BytesIO()
        torch.save(self.early.state_dict(), file)
        self.states.append(file.getvalue())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights.append(flat(pl_module.module))  # type: ignore[arg-type]


class Resumed(EarlyStopping):
    """Takes the state of an earlier run, as a checkpoint gives it."""

    state: dict[str, Any]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.load_state_dict(self.state)


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.state_dict().values()]).double()


def run(
    data: tuple[Any, Any, Split], *callbacks: pl.Callback, max_epochs: int, **kwargs: Any
) -> RunResult:
    module, rows, split = data
    kwargs |= {"max_epochs": max_epochs, "enable_progress_bar": False, "callbacks": list(callbacks)}
    parsed = parse_train_kwargs(kwargs)
    return fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)


@pytest.fixture
def data(module: Any, rows: Any, split: Split) -> tuple[Any, Any, Split]:
    return module, rows, split


LOSS: list[float | None] = [5, 4, 6, 6, 6, 6, 6, 6]
SCORE: list[float | None] = [1, 2, 3, 4, 4, 4, 4, 9]


@pytest.mark.parametrize(
    ("stop", "epochs", "reason"),
    [
        ({"combine": "any", "patience": 2}, 4, StopReason.PATIENCE_EXHAUSTED),
        ({"combine": "all", "patience": 2}, 6, StopReason.ALL_METRICS),
        ({"combine": "all", "patience": [2, 3]}, 7, StopReason.ALL_METRICS),
        ({"combine": "all", "patience": [2, 4]}, 8, StopReason.NOT_STOPPED),
        ({"stopping_threshold": [None, 2.5]}, 3, StopReason.STOPPING_THRESHOLD),
        ({"divergence_threshold": [5.5, None]}, 3, StopReason.DIVERGENCE_THRESHOLD),
    ],
)
def test_any_or_all_of_several_metrics_stop_a_run(
    data: Any, stop: dict[str, Any], epochs: int, reason: StopReason
) -> None:
    early = EarlyStopping(["script_loss", "script_f1"], **stop)
    outcome = run(data, Script(script_loss=LOSS, script_f1=SCORE), early, max_epochs=8)
    assert outcome.error is None
    assert outcome.report.epochs == epochs
    assert early.stopping_reason == reason
    assert (early.reason is None) == (reason == StopReason.NOT_STOPPED)
    assert early.mode == ["min", "max"]


def test_two_callbacks_are_any(data: Any) -> None:
    two = [EarlyStopping("script_loss", patience=9), EarlyStopping("script_f1", patience=2)]
    outcome = run(data, Script(script_loss=LOSS, script_f1=SCORE), *two, max_epochs=8)
    assert outcome.report.epochs == 6


@pytest.mark.parametrize(("restore", "epoch"), [(True, 1), ("script_f1", 3), ("script_loss", 1)])
def test_the_first_metric_or_the_one_named_decides_what_comes_back(
    data: Any, restore: bool | str, epoch: int
) -> None:
    early = EarlyStopping(["script_loss", "script_f1"], restore_best=restore, patience=9)
    recorder = Recorder(early)
    script = Script(script_loss=LOSS, script_f1=SCORE)
    outcome = run(data, script, recorder, early, max_epochs=6)
    assert outcome.report.restored_epoch == epoch
    assert torch.equal(flat(data[0]), recorder.weights[epoch])


def test_a_run_that_is_to_stop_stays_so(data: Any) -> None:
    class Ends(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.should_stop = trainer.should_stop or trainer.current_epoch == 1

    improving = Script(script_loss=[5, 4, 3, 2])
    assert (
        run(data, Ends(), improving, EarlyStopping("script_loss"), max_epochs=4).report.epochs == 2
    )


def test_a_value_that_was_not_logged_again_is_no_check(data: Any) -> None:
    values = [5.0, None, None, 5.0, None, None, 5.0, None]
    early = EarlyStopping("script_loss", patience=2)
    assert run(data, Promising(script_loss=values), early, max_epochs=8).report.epochs == 7
    early = EarlyStopping("script_loss", patience_epochs=3)
    assert run(data, Promising(script_loss=values), early, max_epochs=8).report.epochs == 4


def test_a_metric_that_a_callback_promises_is_waited_for_and_others_are_not(data: Any) -> None:
    values = [None, None, 5.0, 4.0]
    early = EarlyStopping("script_loss")
    assert run(data, Promising(script_loss=values), early, max_epochs=4).report.best_epoch == 3
    outcome = run(data, Script(script_loss=values), EarlyStopping("script_loss"), max_epochs=4)
    assert isinstance(outcome.error, TrainingError)
    assert "Nothing logged 'script_loss'" in str(outcome.error)


def test_validation_in_some_epochs_is_checked_in_those(data: Any) -> None:
    kwargs = {"max_epochs": 20, "check_val_every_n_epoch": 3}
    early = EarlyStopping("elbo_validation", min_delta=1e9, patience=2)
    assert run(data, early, **kwargs).report.epochs == 9
    early = EarlyStopping("elbo_validation", min_delta=1e9, patience_epochs=6)
    assert run(data, early, **kwargs).report.epochs == 9
    # Six epochs are two checks; the first that counts is that of epoch 8.
    early = EarlyStopping("elbo_validation", min_delta=1e9, patience=2, warmup_epochs=6)
    assert run(data, early, **kwargs).report.epochs == 15


def test_a_metric_of_training_is_checked_in_every_epoch_whatever_validation_does(data: Any) -> None:
    early = EarlyStopping("elbo_train", min_delta=1e9, patience=2)
    assert run(data, early, max_epochs=20, check_val_every_n_epoch=3).report.epochs == 3


@pytest.mark.parametrize("n_warmup", [0, 3])
def test_the_kl_weight_ends_the_warm_up(data: Any, n_warmup: int) -> None:
    rising = Script(script_loss=[float(i) for i in range(8)])
    early = EarlyStopping("script_loss", patience=2, warmup_epochs="kl")
    plan = {"plan_kwargs": {"n_epochs_kl_warmup": n_warmup}}
    report = run(data, rising, early, max_epochs=8, **plan).report
    assert (report.best_epoch, report.epochs) == (n_warmup, n_warmup + 3)


def test_a_kl_weight_by_steps_ends_the_warm_up_too(data: Any) -> None:
    # 50 cells in batches of 10 are 5 steps; step 12 is in the third epoch.
    rising = Script(script_loss=[float(i) for i in range(8)])
    early = EarlyStopping("script_loss", patience=2, warmup_epochs="kl")
    plan = {"n_epochs_kl_warmup": None, "n_steps_kl_warmup": 12}
    report = run(data, rising, early, max_epochs=8, batch_size=10, plan_kwargs=plan).report
    assert (report.best_epoch, report.epochs) == (2, 5)


def test_a_kl_weight_that_is_never_reached_is_told(data: Any) -> None:
    early = EarlyStopping("elbo_train", warmup_epochs="kl")
    with pytest.warns(TrainingWarning, match=r"waits for a KL weight of 1, but .* reaches 0\.5 in"):
        run(data, early, max_epochs=2, plan_kwargs={"n_epochs_kl_warmup": 2})


def test_counters_stay_between_runs_when_asked_but_not_between_networks(data: Any) -> None:
    for reset, epochs in ((True, 3), (False, 1)):
        early = EarlyStopping("script_loss", patience=3, reset_on_train=reset)
        assert run(data, Script(script_loss=[1, 2, 2]), early, max_epochs=3).report.epochs == 3
        assert early.wait_count == 2
        outcome = run(data, Script(script_loss=[3, 4, 5]), early, max_epochs=3)
        assert outcome.report.epochs == epochs
        assert early.best_score.item() == (3 if reset else 1)
    other = type(data[0])(data[0].sizes, data[0].config)
    outcome = run((other, *data[1:]), Script(script_loss=[3, 4, 5]), early, max_epochs=3)
    assert (outcome.report.epochs, outcome.report.best_score) == (3, 3)


def test_a_run_goes_on_from_every_epoch_as_if_it_had_not_been_cut(data: Any) -> None:
    values: list[float | None] = [5, 4, 4.5, 3, 3.5, 3.2, 3.1, 3.3, 2]
    begin = {k: v.clone() for k, v in data[0].state_dict().items()}
    whole = EarlyStopping("script_loss", patience=4)
    recorder = Recorder(whole)
    report = run(data, Script(script_loss=values), recorder, whole, max_epochs=9).report
    assert (report.epochs, report.best_epoch) == (8, 3)
    best = recorder.weights[3]
    for cut in range(1, 8):
        data[0].load_state_dict(begin)
        rest = Resumed("script_loss", patience=4)
        rest.state = torch.load(io.BytesIO(recorder.states[cut]), weights_only=True)
        report = run(data, Script(script_loss=values[cut:]), rest, max_epochs=9 - cut).report
        assert report.epochs == 8 - cut
        assert rest.wait_count == 4
        if cut > 3:
            assert report.best_score == 3
            assert torch.equal(flat(data[0]), best)


def test_what_is_asked_for_now_goes_before_what_a_state_says(data: Any) -> None:
    early = EarlyStopping("script_loss", patience=50)
    run(data, Script(script_loss=[1, 2, 3]), early, max_epochs=3)
    again = EarlyStopping("script_loss", patience=2, restore_best=False)
    again.load_state_dict(early.state_dict())
    assert (again.patience, again.wait_count) == (2, 2)
    assert again.rules[0].criteria.patience == 2
    assert not again.best_weights.restore(pl.LightningModule())


def test_counting_begins_again_after_a_run_that_was_stopped(data: Any) -> None:
    early = EarlyStopping("script_loss", patience=2)
    run(data, Script(script_loss=[1, 2, 3]), early, max_epochs=3)
    assert early.stopping_reason == StopReason.PATIENCE_EXHAUSTED
    again = Resumed("script_loss", patience=2)
    again.state = early.state_dict()
    report = run(data, Script(script_loss=[4, 4, 4, 4]), again, max_epochs=4).report
    assert (report.epochs, report.best_score) == (2, 1)


def test_improvements_and_waiting_are_told_when_asked(
    data: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for verbose in (False, True):
        caplog.clear()
        early = EarlyStopping("script_loss", patience=3, verbose=verbose)
        with caplog.at_level(logging.INFO, "cellvae"):
            run(data, Script(script_loss=[5, 4.5, 4.75]), early, max_epochs=3)
        lines = [line for line in caplog.messages if line.startswith("Epoch")]
        if verbose:
            assert lines == [
                "Epoch 0: script_loss is 5.0000; nothing to wait for.",
                "Epoch 1: script_loss improved from 5.0000 to 4.5000; nothing to wait for.",
                "Epoch 2: script_loss is 4.7500, no better than 4.5000; waited for 1 of 3 checks.",
            ]
        else:
            assert lines == []


def test_a_metric_is_found_under_the_other_spelling_of_its_split(data: Any) -> None:
    early = EarlyStopping("training_script", mode="min")
    outcome = run(data, Script(script_train=[3.0, 2.0, 4.0]), early, max_epochs=3)
    assert outcome.report.best_epoch == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"monitor": []}, "different metrics to monitor"),
        ({"monitor": ["elbo_train", "elbo_train"]}, "different metrics to monitor"),
        ({"combine": "some"}, "combine to be 'any' or 'all'; got 'some'"),
        ({"warmup_epochs": "lk"}, "number of epochs or 'kl'; got 'lk'"),
        ({"warmup_epochs": -1}, "number of epochs or 'kl'; got -1"),
        ({"mode": "up"}, "mode to be 'min', 'max' or 'auto'; got 'up'"),
        (
            {"monitor": ["elbo_train", "elbo_validation"], "restore_best": "elbo_trian"},
            "Did you mean 'elbo_train'",
        ),
        (
            {"monitor": ["elbo_train", "elbo_validation"], "min_delta": [1, 2, 3]},
            "min_delta to be one value, or 2 .* got 3",
        ),
    ],
)
def test_choices_that_make_no_sense_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        EarlyStopping(**kwargs)


def test_it_knows_its_place_and_what_it_follows_and_keeps_its_arguments() -> None:
    early = EarlyStopping(("elbo_validation", "eval/mAP"), 0.5, [3, 4], baseline=(1.0, None))
    assert isinstance(early, HasGroup)
    assert isinstance(early, FollowsMetrics)
    assert early.group == Group.STOPPER
    assert early.followed_metrics() == ["elbo_validation", "eval/mAP"]
    kept = (early.monitor, early.min_delta, early.patience, early.baseline, early.combine)
    assert kept == (("elbo_validation", "eval/mAP"), 0.5, [3, 4], (1.0, None), "any")
    assert early.state_key == EarlyStopping(["elbo_validation", "eval/mAP"]).state_key
    stock = pl.callbacks.EarlyStopping("elbo_validation")
    assert EarlyStopping("elbo_validation").state_key == stock.state_key


class Line(pl.LightningModule):
    """One weight; the metric differs between processes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight - 1).square() + 0 * batch.sum()

    def on_train_epoch_end(self) -> None:
        mean = [5.0, 3.0, 4.0, 4.0, 4.0][self.trainer.current_epoch]
        apart = 10.0 * (-1) ** self.trainer.current_epoch
        value = mean + (apart if self.trainer.global_rank else -apart)
        self.log("own_loss", value, on_step=False, on_epoch=True, rank_zero_only=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer_of(folder: Path, *callbacks: pl.Callback, **kwargs: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=5,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=folder,
        log_every_n_steps=1,
        **kwargs,
    )


def test_a_kl_weight_needs_a_plan(tmp_path: Path) -> None:
    early = EarlyStopping("own_loss", warmup_epochs="kl")
    with pytest.raises(InvalidOptionError, match="warmup_epochs='kl'; got a Line"):
        trainer_of(tmp_path, early).fit(Line(), [torch.zeros(1)])


class Told(pl.Callback):
    """Writes what each process has in the end."""

    def __init__(self, folder: Path, early: EarlyStopping) -> None:
        self.folder, self.early = folder, early

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = {
            "epochs": trainer.current_epoch,
            "best": self.early.best_score.item(),
            "weight": next(pl_module.parameters()).item(),
            "reason": str(self.early.stopping_reason),
        }
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:It is recommended to use .*sync_dist")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_two_processes_decide_alike_by_their_mean(tmp_path: Path) -> None:
    if torch.cuda.is_initialized():
        pytest.skip("a process that has used CUDA cannot be forked")
    early = EarlyStopping("own_loss", patience=2)
    trainer = trainer_of(tmp_path, early, Told(tmp_path, early), strategy="ddp_fork", devices=2)
    trainer.fit(Line(), torch.utils.data.DataLoader(torch.zeros(4, 1)))
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    # Two steps an epoch, and the best epoch is the second.
    assert found[0]["weight"] == pytest.approx(1 - 0.8**4)
    assert (found[0]["epochs"], found[0]["best"]) == (4, 3.0)
    assert found[0]["reason"] == StopReason.PATIENCE_EXHAUSTED


@pytest.fixture(scope="module")
def cells(shared_data: Path) -> Any:
    adata = anndata.read_h5ad(shared_data / "pbmc3k.h5ad")
    random = np.random.default_rng(0)
    chosen = random.choice(adata.n_obs, 300, replace=False)
    genes = np.argsort(-np.asarray(adata.X.sum(0)).ravel())[:100]
    return adata[np.sort(chosen), np.sort(genes)].copy()


def test_all_ways_to_ask_for_it_stop_at_the_same_epoch_on_real_cells(cells: Any) -> None:
    SCVI.setup_anndata(cells)
    asked: list[dict[str, Any]] = [
        {
            "early_stopping": True,
            "early_stopping_patience": 2,
            "early_stopping_min_delta": 1.0,
        },
        {"callbacks": [EarlyStopping("elbo_validation", min_delta=1.0, patience=2)]},
        {"callbacks": [pl.callbacks.EarlyStopping("elbo_validation", min_delta=1.0, patience=2)]},
    ]
    epochs, values = [], []
    for kwargs in asked:
        torch.manual_seed(0)
        model = SCVI(cells, n_hidden=16, n_latent=4)
        model.train(
            60,
            accelerator="cpu",
            seed=0,
            train_size=0.8,
            plan_kwargs={"lr": 0.05},
            enable_progress_bar=False,
            **kwargs,
        )
        epochs.append(model.training_report.epochs)
        values.append(np.asarray(model.history["elbo_validation"]).ravel())
    assert epochs[0] == epochs[1] == epochs[2] < 60
    assert np.array_equal(values[0], values[2])
    # The same by hand: improvements are those of more than 1 over the last improvement.
    reference, waited, stop = np.inf, 0, 0
    for value in values[0]:
        stop += 1
        reference, waited = (value, 0) if reference - value > 1 else (reference, waited + 1)
        if waited == 2:
            break
    assert stop == epochs[0]

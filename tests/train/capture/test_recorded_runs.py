"""Runs of recorded steps train as plain ones do, bit by bit, on the path of a CUDA device."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from recorder import Recorder

from cellvae.errors import TrainingError, TrainingWarning
from cellvae.model.scvi import SCVIModule
from cellvae.train.callbacks.ema import EMA
from cellvae.train.callbacks.freeze import Freeze
from cellvae.train.loop.cuda_graph import choose_capture
from cellvae.train.loop.steps.step_state import SUMS, StateCopy, copy_state, find_difference
from cellvae.train.loop.steps_per_block import choose_steps
from cellvae.train.options.train_options import TrainOptions
from cellvae.train.run import placement

from conftest import CASES  # isort: skip

pytestmark = pytest.mark.trains

CAPTURED = [case for case in CASES if case.name != "AmortizedLDA"]
SCVI, SCANVI = CASES[:2]
EPOCHS, N_FULL = 4, 5
"""Epochs, and full batches of an epoch: 86 training cells are 5 batches of 16 and one of 6."""


def train(case: Any, **kwargs: Any) -> Any:
    """Model after a run of four epochs."""
    return train_model(case.made(), **kwargs)


def train_model(model: Any, **kwargs: Any) -> Any:
    given: dict[str, Any] = {
        "max_epochs": EPOCHS,
        "batch_size": 16,
        "seed": 0,
        "check_val_every_n_epoch": 1,
    }
    given |= {"enable_progress_bar": False, "accelerator": "cpu", "early_stopping": False}
    model.train(**given | kwargs)
    return model


def differing(first: Any, second: Any) -> list[str]:
    """Names of weights and metrics that are not the same bits."""
    one, two = first.module.state_dict(), second.module.state_dict()
    names = [name for name in one if not torch.equal(one[name], two[name])]
    columns = [c for c in first.history.table if not first.history[c].equals(second.history[c])]
    return names + columns


def assert_same_run(
    case: Any, recorded: list[Recorder], n_recorded: int = 1, **kwargs: Any
) -> tuple[Any, Recorder]:
    """Train plain and recorded; the recorded model and its recorder."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TrainingWarning)
        plain = train(case, capture_steps=False, **kwargs)
        model = train(case, capture_steps=True, **kwargs)
    assert plain.training_report.placement == "device"
    assert differing(plain, model) == []
    (recorder,) = recorded
    assert "replayed from a CUDA graph" in model.training_report.capture_reason
    assert recorder.n_recorded == n_recorded
    assert recorder.n_warmed_up == 3 * n_recorded
    return model, recorder


@pytest.mark.parametrize("case", CAPTURED, ids=lambda case: case.label)
def test_every_model_trains_bit_by_bit_as_without_a_recording(
    case: Any, recorded: list[Recorder]
) -> None:
    # Where an adversarial classifier stops to count, the step is recorded again.
    adversarial = case.name in ("TOTALVI", "MULTIVI") or bool(case.training)
    _, recorder = assert_same_run(case, recorded, 2 if adversarial else 1)
    assert recorder.n_replayed == EPOCHS * N_FULL - 3 * recorder.n_recorded


OPTIONS: dict[str, dict[str, Any]] = {
    "kl by epoch": {"n_epochs_kl_warmup": 3},
    "kl by step": {"n_steps_kl_warmup": 13, "n_epochs_kl_warmup": None},
    "AdamW": {"plan_kwargs": {"optimizer": "AdamW", "weight_decay": 0.1}},
    "ignore": {"on_nan": "ignore"},
    "raise": {"on_nan": "raise"},
    "skip_batch": {"on_nan": "skip_batch"},
    "blocks of two": {"steps_per_block": 2},
    "early stopping": {"early_stopping": True, "early_stopping_patience": 1, "max_epochs": 8},
    "batches of 7": {"batch_size": 7},
    "batches of 40": {"batch_size": 40},
    "without an incomplete batch": {"batch_size": 43},
    "dropped": {"datasplitter_kwargs": {"drop_last": True}},
    "moving average": {"ema_decay": 0.9},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("case", [SCVI, SCANVI], ids=lambda case: case.name)
def test_options_of_a_run_do_not_change_that(
    case: Any, name: str, recorded: list[Recorder]
) -> None:
    assert_same_run(case, recorded, **OPTIONS[name])


def test_a_schedule_of_the_learning_rate_is_recorded_again(recorded: list[Recorder]) -> None:
    plateau = {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e9}
    # The rate is lowered after every epoch but the first.
    _, recorder = assert_same_run(SCVI, recorded, 3, plan_kwargs=plateau)
    assert recorder.n_replayed == EPOCHS * N_FULL - 9
    recorded.clear()
    assert_same_run(SCVI, recorded, EPOCHS, lr_schedule="cosine")


def frozen_parts() -> list[pl.Callback]:
    return [Freeze("z_encoder", until_epoch=2), Freeze("decoder.px_scale_decoder")]


def test_frozen_parts_stay_frozen(recorded: list[Recorder]) -> None:
    plain = train(SCVI, capture_steps=False, callbacks=frozen_parts())
    model = train(SCVI, capture_steps=True, callbacks=frozen_parts())
    assert differing(plain, model) == []
    (recorder,) = recorded
    # Once with the encoder frozen, once without.
    assert recorder.n_recorded == 2
    name = "decoder.px_scale_decoder.0.weight"
    assert torch.equal(model.module.state_dict()[name], SCVI.made().module.state_dict()[name])


@pytest.mark.parametrize("case", [SCVI, SCANVI], ids=lambda case: case.name)
def test_a_query_trains_its_own_part_alone(case: Any, recorded: list[Recorder]) -> None:
    reference = case.made()
    reference.is_trained = True
    query = case.prepared()[:60].copy()
    query.uns.clear()
    query.obs["batch"] = ["b1", "new"] * 30
    before = {k: v.clone() for k, v in reference.module.state_dict().items()}
    models = []
    for capture in (False, True):
        torch.manual_seed(1)
        model = case.kind.load_query_data(query.copy(), reference)
        decay = {"optimizer": "AdamW", "weight_decay": 0.1}
        model.train(
            max_epochs=4,
            batch_size=16,
            train_size=1.0,
            seed=0,
            accelerator="cpu",
            enable_progress_bar=False,
            early_stopping=False,
            capture_steps=capture,
            plan_kwargs=decay,
        )
        models.append(model)
    assert differing(*models) == []
    (recorder,) = recorded
    assert recorder.n_replayed == 4 * 3 - 3
    frozen = models[1].module.frozen_weights
    after = models[1].module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in frozen.parameters)
    for name, part in frozen.slices.items():
        old = torch.cat([*part.select(after[name])], dim=part.dim)
        assert torch.equal(old, before[name].expand_as(old))


class Cut(pl.Callback):
    """Interrupts a run at the start of its third epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 2:
            assert trainer.global_step == 2 * (N_FULL + 1)
            raise KeyboardInterrupt


def test_a_run_that_was_cut_goes_on(recorded: list[Recorder], tmp_path: Path) -> None:
    whole = train(SCVI, capture_steps=False, resume="auto", run_dir=tmp_path / "whole")
    kwargs: dict[str, Any] = {"capture_steps": True, "resume": "auto", "run_dir": tmp_path / "cut"}
    train(SCVI, **kwargs, callbacks=[Cut()])
    again = train(SCVI, **kwargs)
    assert differing(whole, again) == []
    assert [recorder.n_recorded for recorder in recorded] == [1, 1]


def test_two_runs_of_one_model(recorded: list[Recorder]) -> None:
    models = []
    for capture in (False, True):
        model = train(SCVI, capture_steps=capture)
        model.train(
            max_epochs=3,
            batch_size=24,
            seed=1,
            accelerator="cpu",
            enable_progress_bar=False,
            capture_steps=capture,
            early_stopping=False,
        )
        models.append(model)
    assert differing(*models) == []
    assert len(recorded) == 2


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("on_nan", ["skip_batch", "stop_restore", "raise"])
def test_what_is_not_finite_is_left_out(
    on_nan: str, adversarial: bool, recorded: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = SCVIModule.loss

    def spoiled(self: Any, batch: Any, weight: Any) -> Any:
        """NaN in a batch with the oldest cells, from the second epoch on."""
        found = loss(self, batch, weight)
        if not self.training:
            return found
        bad = (batch.continuous[:, 0] > 2.0).any() & (weight > 0.1)
        return found._replace(loss=torch.where(bad, float("nan"), found.loss))

    monkeypatch.setattr(SCVIModule, "loss", spoiled)
    reports = []
    for capture in (False, True):
        kwargs: dict[str, Any] = {"on_nan": on_nan, "adversarial_classifier": adversarial}
        kwargs["n_epochs_kl_warmup"] = 3
        model = SCVI.made()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=TrainingWarning)
            try:
                train_model(model, capture_steps=capture, **kwargs)
            except TrainingError as failure:
                assert on_nan == "raise" and "loss was not finite" in str(failure)
        reports.append((model, model.training_report if model.is_trained else None))
    (plain, told), (model, replayed) = reports
    weights = model.module.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in plain.module.state_dict().items())
    assert all(v.isfinite().all() for v in weights.values())
    if told is not None:
        assert told.nan == replayed.nan and told.n_skipped == replayed.n_skipped > 0
        assert told.epochs == replayed.epochs
    (recorder,) = recorded
    assert recorder.n_recorded >= 1


@pytest.mark.parametrize("capture", [True, "auto"])
def test_an_average_of_every_step_is_part_of_the_step(
    capture: bool | str, recorded: list[Recorder]
) -> None:
    plain_average, average = (EMA(0.9, start_epoch=2, swap_on_end=False) for _ in range(2))
    plain = train(SCVI, capture_steps=False, callbacks=[plain_average])
    model = train(SCVI, capture_steps=capture, callbacks=[average])
    assert differing(plain, model) == []
    assert average.n_updates == plain_average.n_updates == 2 * (N_FULL + 1)
    for name, value in plain_average.average.items():
        assert torch.equal(average.average[name], value)
        assert not torch.equal(value, model.module.state_dict()[name])
    (recorder,) = recorded
    # Once without the average, once with it.
    assert recorder.n_recorded == 2


def test_a_run_with_an_average_goes_on(recorded: list[Recorder], tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"ema_decay": 0.9, "resume": "auto"}
    whole = train(SCVI, capture_steps=False, run_dir=tmp_path / "whole", **kwargs)
    kwargs |= {"capture_steps": True, "run_dir": tmp_path / "cut"}
    train(SCVI, **kwargs, callbacks=[Cut()])
    again = train(SCVI, **kwargs)
    assert differing(whole, again) == []


class Watching(pl.Callback):
    """Callback with a hook at every step of a block."""

    supports_blocks = True

    def on_step_start(self, step: int) -> None: ...

    def on_step_end(self) -> None: ...


def test_a_hook_at_every_step_is_not_captured_and_says_why(recorded: list[Recorder]) -> None:
    model = train(SCVI, capture_steps=True, callbacks=[Watching()])
    assert not recorded
    assert model.training_report.capture_reason == "Watching has hooks at every step"


def test_steps_of_several_processes_are_not_captured() -> None:
    options = TrainOptions(devices=2, capture_steps=True)
    steps = choose_steps(options, [], n_steps=100)
    found = choose_capture(options, [], SCVI.made().module, steps, torch.device("cuda"), "memory")
    assert (found.wanted, found.reason) == (False, "single steps: devices=2")


def test_a_step_that_cannot_be_recorded_runs_plain(
    recorded: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = SCVIModule.loss

    def reading(self: Any, batch: Any, weight: Any) -> Any:
        found = loss(self, batch, weight)
        found.loss.item()
        return found

    monkeypatch.setattr(SCVIModule, "loss", reading)
    plain, model = train(SCVI, capture_steps=False), train(SCVI, capture_steps=True)
    assert differing(plain, model) == []
    reason = model.training_report.capture_reason
    assert reason.startswith("CaptureError: the host reads a tensor by item: test_recorded_runs.py")


@pytest.mark.parametrize("case", [SCVI, CASES[5]], ids=lambda case: case.name)
def test_by_default_the_first_replayed_steps_are_compared(
    case: Any, recorded: list[Recorder]
) -> None:
    plain, model = train(case, capture_steps=False), train(case)
    assert differing(plain, model) == []
    (recorder,) = recorded
    n_steps = EPOCHS * N_FULL - 3 * recorder.n_recorded
    assert recorder.n_replayed == n_steps
    assert model.training_report.capture_reason == f"{n_steps} steps replayed from a CUDA graph"


class Forgetful(Recorder):
    """Recorder that loses the operations of one name."""

    forgotten = ""

    def capture(self, step: Any) -> Any:
        replay = super().capture(step)
        recording = self.recordings[-1]
        kept = [each for each in recording.operations if each.name != self.forgotten]
        assert len(kept) < len(recording.operations)
        recording.operations[:] = kept
        return replay


@pytest.mark.parametrize(
    ("forgotten", "what"),
    [
        ("_fused_adam_", "weights"),
        ("_foreach_add_", "weights|step of the optimizer"),
        ("bernoulli_", "weights"),
        ("add_", "weights|sums of the loss|counters"),
    ],
)
def test_steps_that_differ_are_made_without_a_graph(
    forgotten: str, what: str, recorded: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "CUDAGraphCapturer", Forgetful)
    monkeypatch.setattr(Forgetful, "forgotten", forgotten)
    plain = train(SCVI, capture_steps=False)
    with pytest.warns(TrainingWarning, match=rf"differed from a plain one: ({what}) by") as told:
        model = train(SCVI, capture_steps="auto")
    assert len(told) == 1
    assert differing(plain, model) == []
    assert "differed from a plain one" in model.training_report.capture_reason
    assert recorded[0].n_replayed == 1


def test_the_differences_that_rounding_makes_are_none() -> None:
    torch.manual_seed(0)
    tensors = {"weights": [torch.randn(50, 4), torch.randn(3)], SUMS: [torch.rand(6).double()]}
    tensors["counters"] = [torch.tensor(3)]
    device = torch.device("cpu")

    def moved(noise: float, n: int = 4, part: float = 1.0) -> StateCopy:
        torch.manual_seed(1)
        copy = copy_state(tensors, device)
        for value in (t for name in ("weights", SUMS) for t in copy.values[name]):
            step = torch.randn_like(value)
            value += part * step * (1 + noise)
        copy.values["counters"][0].fill_(n)
        return copy

    before = copy_state(tensors, device)
    assert find_difference(before, moved(0.0), moved(1e-6)) == ""
    assert find_difference(before, moved(0.0), moved(1e-3)).startswith("sums of the loss by 0.001")
    assert find_difference(before, moved(0.0), moved(0.1)).startswith("weights by 0.1 of")
    assert find_difference(before, moved(0.0), moved(0.0, n=5)).startswith("counters by 1 of")
    assert find_difference(before, moved(0.0), before).startswith("weights by 1 of")
    assert find_difference(before, before, before) == ""
    assert find_difference(before, before, moved(0.0)).startswith("weights by 1 of")

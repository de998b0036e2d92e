"""The moving average of the weights, compared with the formula, and what it leaves alone."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from anndata import AnnData, read_h5ad

from cellvae.data import synthetic_iid
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train import EarlyStopping, SaveCheckpoint
from cellvae.train.callbacks.ema import EMA
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.train_options import LoaderOptions
from cellvae.train.run.split_blocks import VALIDATION_BATCH_SIZE, make_split_blocks

pytestmark = pytest.mark.trains

WORDS: dict[str, Any] = {"seed": 0, "batch_size": 24, "enable_progress_bar": False}
Weights = dict[str, torch.Tensor]


def copied(module: torch.nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


class Watch(pl.Callback):
    """Notes the state of the network after each step, in validation, and between epochs."""

    # After EMA, before whatever stops and saves.
    group: Group = Group.RECORDER

    def __init__(self, fail_in: int | None = None) -> None:
        self.fail_in = fail_in
        self.steps: list[Weights] = []
        self.starts: list[Weights] = []
        self.validated: list[Weights] = []
        self.ends: list[Weights] = []
        self.plan: TrainingPlan | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.steps.append(copied(pl_module.module))
        if trainer.current_epoch == self.fail_in and len(self.steps) % 2 == 0:
            raise OSError("disk full")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.starts.append(copied(pl_module.module))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.validated.append(copied(pl_module.module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.ends.append(copied(pl_module.module))
        self.plan = pl_module


@pytest.fixture
def adata() -> AnnData:
    cells = synthetic_iid(batch_size=40, n_genes=15)
    SCVI.setup_anndata(cells, batch_key="batch")
    return cells


def made(adata: AnnData) -> SCVI:
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2, dropout_rate=0.1)


def trained(adata: AnnData, *callbacks: pl.Callback, epochs: int = 4, **kwargs: Any) -> SCVI:
    model = made(adata)
    model.train(epochs, callbacks=list(callbacks), **WORDS, **kwargs)
    return model


def names_of(model: SCVI) -> list[str]:
    return [name for name, _ in model.module.named_parameters()]


def by_hand(values: list[Weights], names: list[str], decay: float) -> Weights:
    """Average of some states, summed with the weight that each has in the end."""
    n = len(values)
    parts = [decay ** (n - 1)] + [(1 - decay) * decay ** (n - 1 - i) for i in range(1, n)]
    assert sum(parts) == pytest.approx(1)
    return {
        name: sum(p * v[name].double() for p, v in zip(parts, values, strict=True))  # type: ignore[misc]
        for name in names
    }


def assert_close(found: Weights, expected: Weights) -> None:
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("every", ["step", "epoch"])
@pytest.mark.parametrize("start", [0, 2])
def test_the_average_is_the_sum_of_the_formula(adata: AnnData, every: Any, start: int) -> None:
    watch = Watch()
    model = trained(adata, EMA(0.7, every, start), watch, check_val_every_n_epoch=1)
    n = len(watch.steps) // 4
    assert n == 3
    names = names_of(model)
    for epoch in range(4):
        done = watch.steps[start * n : (epoch + 1) * n]
        values = done if every == "step" else done[n - 1 :: n]
        raw = watch.steps[(epoch + 1) * n - 1]
        seen = watch.validated[epoch]
        assert same(seen, watch.ends[epoch])
        if not values:
            assert same(seen, raw)
            continue
        assert_close(seen, by_hand(values, names, 0.7))
        # Counts, means and variances of batch normalisation are the newest.
        assert all(torch.equal(seen[name], raw[name]) for name in raw if name not in names)
        assert epoch == start or not torch.equal(seen[names[0]], raw[names[0]])
    assert same(copied(model.module), watch.ends[-1])


@pytest.mark.parametrize("evaluate", [True, False])
@pytest.mark.parametrize("validate", [None, 1, 2])
def test_training_goes_on_to_the_last_bit(
    adata: AnnData, evaluate: bool, validate: int | None
) -> None:
    plain, watch = Watch(), Watch()
    kwargs = {"check_val_every_n_epoch": validate}
    one = trained(adata, plain, **kwargs)
    two = trained(adata, EMA(0.9, evaluate=evaluate, swap_on_end=False), watch, **kwargs)
    assert all(same(a, b) for a, b in zip(plain.steps, watch.steps, strict=True))
    assert all(same(a, b) for a, b in zip(plain.starts, watch.starts, strict=True))
    assert same(copied(one.module), copied(two.module))
    swapped = not same(plain.ends[-1], watch.ends[-1])
    assert swapped == evaluate
    train = ["elbo_train", "train_loss"]
    assert one.history.table[train].equals(two.history.table[train])


def test_validation_within_epochs_does_not_disturb_it(adata: AnnData) -> None:
    plain, watch = Watch(), Watch()
    kwargs = {"check_val_every_n_epoch": 1, "val_check_interval": 1}
    trained(adata, plain, **kwargs)
    trained(adata, EMA(0.9), watch, **kwargs)
    assert all(same(a, b) for a, b in zip(plain.steps, watch.steps, strict=True))
    assert len(watch.validated) == 12
    assert not same(watch.validated[4], plain.validated[4])


@pytest.mark.parametrize("every", ["step", "epoch"])
@pytest.mark.parametrize("start", [0, 2])
def test_blocks_of_steps_have_the_average_of_single_steps(
    adata: AnnData, every: Any, start: int
) -> None:
    single = trained(adata, EMA(0.7, every, start), Watch(), check_val_every_n_epoch=1)
    blocks = trained(adata, EMA(0.7, every, start), check_val_every_n_epoch=1)
    assert single.training_report is not None
    assert blocks.training_report is not None
    assert single.training_report.steps_reason == "single steps: Watch has on_train_batch_end"
    assert blocks.training_report.steps_reason == "nothing watches single steps"
    weights = copied(single.module)
    assert_close(copied(blocks.module), {name: v.double() for name, v in weights.items()})
    validation = "elbo_validation"
    expected = single.history[validation][validation].to_numpy()
    assert blocks.history[validation][validation].to_numpy() == pytest.approx(expected, rel=1e-5)
    if every == "step" and start == 0:
        word = trained(adata, ema_decay=0.7, check_val_every_n_epoch=1)
        assert same(copied(word.module), copied(blocks.module))
        assert "ema" in word.default_callbacks(ema_decay=0.7)
        left_out = word.default_callbacks(ema_decay=0.7, callbacks={"ema": None})
        assert "ema" not in left_out
        assert "ema" not in word.default_callbacks(ema_decay=0.7, callbacks=[EMA(0.9)])


def test_sanity_checking_and_accumulation_do_not_disturb_it(adata: AnnData) -> None:
    watch, ema = Watch(), EMA(0.7)
    kwargs = {"check_val_every_n_epoch": 1, "num_sanity_val_steps": 2}
    model = trained(adata, ema, watch, accumulate_grad_batches=2, **kwargs)
    changed = [
        value
        for before, value in zip([watch.starts[0], *watch.steps], watch.steps, strict=False)
        if not torch.equal(before[names_of(model)[0]], value[names_of(model)[0]])
    ]
    assert ema.n_updates == len(changed) == 8
    assert_close(watch.ends[-1], by_hand(changed, names_of(model), 0.7))
    assert len(watch.validated) == 5
    assert same(watch.validated[0], watch.starts[0])


def score(plan: TrainingPlan, model: SCVI) -> float:
    """Validation ELBO of a model, computed anew as a run does."""
    assert plan.rows is not None and plan.split is not None
    judge = TrainingPlan(model.module, seed=plan.seed, warmup=plan.warmup)
    loader = LoaderOptions(batch_size=VALIDATION_BATCH_SIZE, shuffle=False)
    blocks = make_split_blocks(plan.rows, plan.split.validation, loader, plan.seed, 1)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    (found,) = trainer.validate(judge, blocks, verbose=False)
    return float(found["elbo_validation"])


def check_best(adata: AnnData, tmp_path: Path, epochs: int, **kwargs: Any) -> None:
    watch, saver = Watch(), SaveCheckpoint(tmp_path, "{epoch}")
    model = trained(adata, EMA(0.8), watch, saver, epochs=epochs, **kwargs)
    assert saver.best_path is not None and saver.best_epoch is not None
    assert watch.plan is not None
    loaded = SCVI.load(saver.best_path, adata)
    assert same(copied(loaded.module), watch.ends[saver.best_epoch])
    assert same(copied(loaded.module), watch.validated[saver.best_epoch])
    n = len(watch.steps) // epochs
    raw = watch.steps[(saver.best_epoch + 1) * n - 1]
    assert not same(copied(loaded.module), raw)
    assert same(copied(model.module), copied(loaded.module))
    record = json.loads((saver.best_path / "model.json").read_text())
    saved = record["training"]["checkpoint"]["metrics"]["elbo_validation"]
    assert saved == saver.best_score
    assert score(watch.plan, loaded) == pytest.approx(saved, rel=1e-6)
    loaded.module.load_state_dict(raw)
    assert abs(score(watch.plan, loaded) / saved - 1) > 1e-5


def test_what_is_saved_is_what_was_measured(adata: AnnData, tmp_path: Path) -> None:
    check_best(adata, tmp_path, 4)


def test_what_is_saved_of_real_cells_is_what_was_measured(
    shared_data: Path, tmp_path: Path
) -> None:
    cells = read_h5ad(shared_data / "pbmc3k.h5ad")[::9, ::20].copy()
    SCVI.setup_anndata(cells)
    check_best(cells, tmp_path, 3)


def test_early_stopping_brings_back_the_average(adata: AnnData) -> None:
    watch, stop = Watch(), EarlyStopping(patience=40)
    model = trained(adata, stop, watch, EMA(0.8))
    report = model.training_report
    assert report is not None and report.best_epoch is not None
    assert same(copied(model.module), watch.validated[report.best_epoch])


@pytest.mark.parametrize("every", ["step", "epoch"])
@pytest.mark.parametrize("swap_on_end", [True, False])
def test_a_run_that_goes_on_ends_as_one_that_did_not(
    adata: AnnData, tmp_path: Path, every: Any, swap_on_end: bool
) -> None:
    def run(root: Path, fail_in: int | None) -> tuple[SCVI, Watch]:
        model, watch = made(adata), Watch(fail_in)
        ema = EMA(0.8, every, start_epoch=1, swap_on_end=swap_on_end)
        kwargs: dict[str, Any] = {"run_dir": root, "resume": "auto", "check_val_every_n_epoch": 1}
        try:
            model.train(5, callbacks=[ema, watch], **kwargs, **WORDS)
        except OSError as error:
            assert str(error) == "disk full"
        return model, watch

    whole, first = run(tmp_path / "a", None)
    run(tmp_path / "b", 3)
    again, second = run(tmp_path / "b", None)
    assert again.training_report is not None
    assert again.training_report.resumed_epoch == 3
    assert same(copied(whole.module), copied(again.module))
    assert all(same(a, b) for a, b in zip(first.steps[9:], second.steps, strict=True))
    assert all(same(a, b) for a, b in zip(first.ends[3:], second.ends, strict=True))
    assert whole.history.table.equals(again.history.table)


def test_one_serves_two_runs_without_mixing_them(adata: AnnData) -> None:
    ema = EMA(0.8)
    trained(adata, ema, epochs=2)
    second = trained(adata, ema, epochs=3)
    assert ema.n_updates == 9
    assert same(copied(second.module), copied(trained(adata, EMA(0.8), epochs=3).module))


@pytest.mark.parametrize("swap_on_end", [True, False])
def test_after_an_exception_the_weights_are_finite(
    adata: AnnData, tmp_path: Path, swap_on_end: bool
) -> None:
    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            if trainer.current_epoch == 2:
                with torch.no_grad():
                    next(pl_module.module.parameters()).fill_(float("nan"))
                raise OSError("disk full")

    watch, ema = Watch(), EMA(0.8, swap_on_end=swap_on_end)
    model = made(adata)
    with pytest.raises(OSError, match="disk full"):
        model.train(3, callbacks=[ema, Poison(), watch], on_nan="ignore", **WORDS)
    assert same(copied(model.module), watch.ends[1])


def test_an_exception_leaves_what_the_end_would(adata: AnnData) -> None:
    watches = [Watch(2), Watch(2)]
    raw, average = made(adata), made(adata)
    for model, watch, swap in zip((raw, average), watches, (False, True), strict=True):
        with pytest.raises(OSError, match="disk full"):
            model.train(3, callbacks=[EMA(0.8, swap_on_end=swap), watch], **WORDS)
    assert same(copied(raw.module), watches[0].steps[-1])
    names = names_of(average)
    assert_close(copied(average.module), by_hand(watches[1].steps, names, 0.8))


def test_a_plain_trainer_and_a_plain_state(tmp_path: Path) -> None:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(2, 1)

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            return (self.line(batch[0]) ** 2).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

        def train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
            cells = torch.utils.data.TensorDataset(torch.ones(4, 2))
            return torch.utils.data.DataLoader(cells, 2)

    torch.manual_seed(0)
    module, ema, seen = Line(), EMA(0.5), []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            seen.append(copied(pl_module))

    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[ema, Note()],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers and logging
        trainer.fit(module)
    assert_close(copied(module), by_hand(seen, ["line.weight", "line.bias"], 0.5))
    torch.save(ema.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = EMA(0.5)
    other.collect_parameters(module)
    other.load_state_dict(state)
    assert same(other.average, ema.average)
    other.collect_parameters(torch.nn.ParameterDict({"a": torch.nn.Parameter(torch.zeros(1))}))  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match=r"'line\.weight' of shape \(1, 2\)"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"decay": 1.0}, "decay to be at least 0 and below 1; got 1.0"),
        ({"every": "batch"}, "'step' or 'epoch'; got 'batch'"),
        ({"start_epoch": -1}, "start_epoch"),
    ],
)
def test_arguments_out_of_range_are_refused(kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidOptionError, match=match):
        EMA(**kwargs)

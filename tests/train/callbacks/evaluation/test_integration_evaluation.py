"""Scores of integration, epoch by epoch, and the run they leave as it was."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from lightning.pytorch.utilities.warnings import PossibleUserWarning

from cellvae.data.batches.blocks import EpochBlocks
from cellvae.errors import InvalidDataError, InvalidOptionError, TrainingError, UnknownKeyError
from cellvae.evaluation import integration_scores
from cellvae.model import SCVI
from cellvae.train import EarlyStopping
from cellvae.train.callbacks.evaluation.integration_evaluation import IntegrationEvaluation
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.kl_warmup import KLWarmup

pytestmark = pytest.mark.trains

N_CELLS = 150


@pytest.fixture
def cells() -> AnnData:
    """Two kinds of cells in three batches; a few have no kind."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, N_CELLS)
    means = random.gamma(2.0, 3.0, (2, 12))
    names = np.array(["x", "y"], dtype=object)[kind]
    names[:4] = None
    obs = pd.DataFrame(
        {"batch": random.choice(["b0", "b1", "b2"], N_CELLS), "kind": pd.Categorical(names)},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    return AnnData(random.poisson(means[kind]).astype(np.float32), obs=obs)


def model_of(cells: AnnData) -> Any:
    SCVI.setup_anndata(cells, batch_key="batch")
    torch.manual_seed(0)
    return SCVI(cells, n_hidden=8, n_latent=3, dropout_rate=0.2)


def train(model: Any, *callbacks: pl.Callback, **kwargs: Any) -> None:
    given = {"max_epochs": 4, "batch_size": 32, "accelerator": "cpu", "seed": 1} | kwargs
    model.train(callbacks=list(callbacks), enable_progress_bar=False, **given)


def weights(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.module.state_dict().values()])


def test_scores_are_those_of_the_latents_of_the_epoch(cells: AnnData) -> None:
    model = model_of(cells)
    evaluation = IntegrationEvaluation("batch", "kind", every_n_epochs=3)
    before = model.module.state_dict()
    before = {k: v.clone() for k, v in before.items()}
    train(model, evaluation, check_val_every_n_epoch=1)
    table = model.history.table
    assert [row["epoch"] for row in evaluation.scores] == [2, 3]
    assert table["eval/ilisi"].dropna().index.tolist() == [2, 3]

    def by_hand() -> dict[str, float]:
        labelled = np.flatnonzero(cells.obs["kind"].notna())
        latent = model.get_latent_representation(cells, indices=labelled)
        train_cells = np.isin(labelled, model.train_indices)
        test_cells = np.isin(labelled, model.validation_indices)
        return integration_scores(
            latent,
            cells.obs["batch"].to_numpy()[labelled],
            cells.obs["kind"].to_numpy()[labelled],
            train=train_cells,
            test=test_cells,
        )

    last = {k: v for k, v in evaluation.scores[-1].items() if k != "epoch"}
    assert last == pytest.approx(by_hand(), abs=1e-6)
    logged = {k.removeprefix("eval/"): v for k, v in table.iloc[-1].items() if "eval/" in k}
    assert logged == pytest.approx(last, rel=1e-6)
    model.module.load_state_dict(before)
    assert evaluation.baseline_scores == pytest.approx(by_hand(), abs=1e-6)
    assert model.history.notes["eval/baseline"] == evaluation.baseline_scores
    assert model.history.notes["eval/definitions"] == evaluation.definitions
    assert "scib-metrics 0.5 and 0.6" in evaluation.definitions["ilisi"]
    assert evaluation.baseline_scores != pytest.approx(last, abs=1e-3)


def test_training_is_not_changed_by_one_bit(cells: AnnData) -> None:
    runs = []
    for callbacks in ((), (IntegrationEvaluation("batch", "kind", every_n_epochs=1),)):
        model = model_of(cells)
        np.random.seed(5)
        torch.manual_seed(5)
        train(model, *callbacks, check_val_every_n_epoch=1)
        table = model.history.table
        kept = table[[name for name in table.columns if not name.startswith("eval/")]]
        runs.append((weights(model), kept, np.random.rand(), torch.rand(3)))
    (w0, table0, np0, torch0), (w1, table1, np1, torch1) = runs
    assert torch.equal(w0, w1)
    pd.testing.assert_frame_equal(table0, table1, check_exact=True)
    assert np0 == np1
    assert torch.equal(torch0, torch1)


class KeepEval(pl.Callback):
    """Keeps the encoder in eval mode, and notes whether it stays there."""

    def __init__(self) -> None:
        self.modes: list[tuple[bool, bool]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.module.z_encoder.eval()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.modes.append((pl_module.module.training, pl_module.module.z_encoder.training))


def test_parts_held_in_eval_mode_stay_in_it(cells: AnnData) -> None:
    keeper = KeepEval()
    train(model_of(cells), IntegrationEvaluation("batch", every_n_epochs=1), keeper)
    assert keeper.modes == [(True, False)] * 4


@pytest.mark.parametrize("stopper_first", [True, False])
def test_it_is_monitored_in_the_same_epoch_whatever_the_order(
    cells: AnnData, stopper_first: bool
) -> None:
    evaluation = IntegrationEvaluation("batch", "kind", every_n_epochs=1)
    stop = EarlyStopping("eval/asw_label", patience=50)
    callbacks = (stop, evaluation) if stopper_first else (evaluation, stop)
    model = model_of(cells)
    train(model, *callbacks, max_epochs=5)
    scores = [row["asw_label"] for row in evaluation.scores]
    assert len(scores) == 5
    assert model.training_report.best_epoch == int(np.argmax(scores))
    assert model.training_report.best_score == pytest.approx(max(scores), rel=1e-6)


def test_the_epoch_in_which_a_run_is_stopped_is_scored_before_the_best_comes_back(
    cells: AnnData,
) -> None:
    class Note(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            self.last = {k: v.clone() for k, v in pl_module.module.state_dict().items()}
            pl_module.log("script_loss", float(trainer.current_epoch), on_epoch=True)

    evaluation, note = IntegrationEvaluation("batch", every_n_epochs=2), Note()
    model = model_of(cells)
    train(model, EarlyStopping("script_loss", patience=2), note, evaluation, max_epochs=20)
    assert model.training_report.restored_epoch == 0
    assert [row["epoch"] for row in evaluation.scores] == [1, 2]
    assert model.history["eval/pcr"].index.tolist() == [1, 2]
    model.module.load_state_dict(note.last)
    expected = integration_scores(model.get_latent_representation(), cells.obs["batch"])
    assert {k: v for k, v in evaluation.scores[-1].items() if k != "epoch"} == pytest.approx(
        expected, abs=1e-6
    )


def test_names_are_known_before_training_and_depend_on_the_keys() -> None:
    produced = IntegrationEvaluation("batch", prefix="valid").produced_metrics()
    assert produced == ["valid/ilisi", "valid/asw_batch", "valid/bras", "valid/pcr"]
    both = {
        *IntegrationEvaluation("batch").produced_metrics(),
        *IntegrationEvaluation(None, "kind").produced_metrics(),
    }
    assert both == set(IntegrationEvaluation("batch", "kind").produced_metrics())
    with pytest.raises(InvalidOptionError, match="Expected batch_key for the metric 'ilisi'"):
        IntegrationEvaluation(None, "kind", metrics=["nmi", "ilisi"])
    with pytest.raises(InvalidOptionError, match="got 'nmii'. Did you mean 'nmi'"):
        IntegrationEvaluation("batch", "kind", metrics=["nmii"])


def test_a_misspelt_monitor_is_refused_before_training(cells: AnnData) -> None:
    with pytest.raises(InvalidOptionError, match="Did you mean 'eval/ilisi'"):
        train(
            model_of(cells),
            IntegrationEvaluation("batch"),
            EarlyStopping("eval/ilis", mode="max"),
        )


def test_the_same_few_cells_are_looked_at_every_time(cells: AnnData) -> None:
    found = []
    for seed in (0, 0, 1):
        evaluation = IntegrationEvaluation("batch", "kind", n_cells=60, seed=seed)
        train(model_of(cells), evaluation, max_epochs=1)
        found.append(evaluation.scores[0])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_labels_are_transferred_from_reference_batches(cells: AnnData) -> None:
    evaluation = IntegrationEvaluation(
        "batch", "kind", reference=["b0", "b1"], metrics=["knn_label_f1"], k=5
    )
    model = model_of(cells)
    train(model, evaluation, max_epochs=2)
    chosen = np.flatnonzero(cells.obs["kind"].notna())
    expected = integration_scores(
        model.get_latent_representation(indices=chosen),
        labels=cells.obs["kind"].to_numpy()[chosen],
        train=cells.obs["batch"].to_numpy()[chosen] != "b2",
        test=cells.obs["batch"].to_numpy()[chosen] == "b2",
        metrics=["knn_label_f1"],
        k=5,
    )
    assert evaluation.scores[-1]["knn_label_f1"] == pytest.approx(expected["knn_label_f1"])
    with pytest.raises(InvalidOptionError, match="got 'b9'. There are 'b0', 'b1', 'b2'"):
        train(model_of(cells), IntegrationEvaluation("batch", "kind", reference="b9"))


def test_other_cells_and_names_can_be_chosen(cells: AnnData) -> None:
    model = model_of(cells)
    others = cells[20:120, ::-1].copy()
    others.obs["kind"] = np.roll(others.obs["kind"].astype(object), 1)
    elsewhere = IntegrationEvaluation("batch", "kind", adata=others, prefix="other")
    names = IntegrationEvaluation("batch", indices=list(cells.obs_names[30:90]), prefix="named")
    train(model, elsewhere, names, max_epochs=1)
    latent = model.get_latent_representation(others)
    expected = integration_scores(latent, others.obs["batch"], others.obs["kind"])
    assert elsewhere.scores[0] == pytest.approx({"epoch": 0, **expected}, abs=1e-6)
    latent = model.get_latent_representation(indices=np.arange(30, 90))
    expected = integration_scores(latent, cells.obs["batch"][30:90])
    assert names.scores[0] == pytest.approx({"epoch": 0, **expected}, abs=1e-6)


def test_one_instance_serves_several_runs(cells: AnnData) -> None:
    evaluation = IntegrationEvaluation("batch", every_n_epochs=1)
    train(model_of(cells), evaluation, max_epochs=2)
    first = evaluation.scores
    model = model_of(cells)
    train(model, evaluation, max_epochs=2)
    assert evaluation.scores == first
    assert evaluation.scores is not first
    train(model, evaluation, max_epochs=2)
    assert [row["epoch"] for row in evaluation.scores] == [2, 3]
    assert evaluation.baseline_scores == {k: v for k, v in first[-1].items() if k != "epoch"}


def test_its_state_is_plain_and_brings_everything_back(cells: AnnData) -> None:
    evaluation = IntegrationEvaluation("batch", "kind", every_n_epochs=1)
    train(model_of(cells), evaluation, max_epochs=2)
    file = io.BytesIO()
    torch.save(evaluation.state_dict(), file)
    file.seek(0)
    other = IntegrationEvaluation("batch", "kind", every_n_epochs=7)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.scores == evaluation.scores
    assert other.baseline_scores == evaluation.baseline_scores
    assert other.every_n_epochs == 7


def test_no_baseline_when_not_asked(cells: AnnData) -> None:
    evaluation = IntegrationEvaluation("batch", baseline=False)
    train(model_of(cells), evaluation, max_epochs=1)
    assert evaluation.baseline_scores == {}


def test_what_cannot_be_scored_is_refused_before_training(cells: AnnData) -> None:
    model = model_of(cells)
    with pytest.raises(UnknownKeyError, match="got 'bach'. Did you mean 'batch'"):
        train(model, IntegrationEvaluation("bach"))
    with pytest.raises(InvalidDataError, match="more than k=15 cells.*got 10 of 10"):
        train(model, IntegrationEvaluation("batch", indices=range(10)))
    cells.obs["one"] = "same"
    with pytest.raises(InvalidOptionError, match="two or more values of batch; got 1"):
        train(model, IntegrationEvaluation("one"))
    cells.obs["copy"] = cells.obs["batch"]
    with pytest.raises(InvalidDataError, match="for 'asw_batch', 'bras'; got none"):
        train(model, IntegrationEvaluation("batch", "copy"))
    with pytest.raises(InvalidOptionError, match="batch_key, label_key or both"):
        IntegrationEvaluation()
    with pytest.raises(InvalidOptionError, match="every_n_epochs to be at least 1; got 0"):
        IntegrationEvaluation("batch", every_n_epochs=0)


def test_a_module_without_cells_is_refused() -> None:
    class Other(pl.LightningModule):
        pass

    with pytest.raises(
        TrainingError, match="IntegrationEvaluation looks at the cells of a cellvae"
    ):
        IntegrationEvaluation("batch").setup(pl.Trainer(logger=False), Other(), "fit")


def test_real_cells_have_scores_within_bounds_that_can_be_monitored(shared_data: Path) -> None:
    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")
    chosen = np.random.default_rng(0).permutation(adata.n_obs)[:400]
    adata = adata[np.sort(chosen)].copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=32)
    evaluation = IntegrationEvaluation("batch", "cell_type", every_n_epochs=2)
    stop = EarlyStopping("eval/knn_label_accuracy", patience=9)
    train(model, stop, evaluation, max_epochs=8, plan_kwargs={"lr": 5e-3})
    last = evaluation.scores[-1]
    assert last["epoch"] == 7
    assert all(0 <= value <= 1 for name, value in last.items() if name != "epoch")
    # Cell types are learned, and donors of one study differ little.
    assert last["knn_label_accuracy"] > max(0.75, evaluation.baseline_scores["knn_label_accuracy"])
    assert last["pcr"] > 0.9
    assert last["ilisi"] > 0.4
    best = max(evaluation.scores, key=lambda row: row["knn_label_accuracy"])
    assert model.training_report.best_epoch == best["epoch"]


class Spoil(pl.Callback):
    """Makes a weight not finite at the end of the first epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        with torch.no_grad():
            next(pl_module.module.z_encoder.parameters()).fill_(float("nan"))


def test_latents_that_are_not_finite_have_no_score_and_do_not_end_the_run(cells: AnnData) -> None:
    evaluation = IntegrationEvaluation("batch", every_n_epochs=1)
    model = model_of(cells)
    train(model, Spoil(), evaluation, max_epochs=1, on_nan="ignore")
    assert np.isfinite([*evaluation.baseline_scores.values()]).all()
    assert {k for k, v in evaluation.scores[0].items() if np.isnan(v)} == {
        *("ilisi", "asw_batch", "bras", "pcr")
    }


def test_it_works_in_double_precision(cells: AnnData) -> None:
    evaluation = IntegrationEvaluation("batch", "kind")
    train(model_of(cells), evaluation, max_epochs=1, precision="64-true")
    single = IntegrationEvaluation("batch", "kind")
    train(model_of(cells), single, max_epochs=1)
    assert evaluation.baseline_scores == pytest.approx(single.baseline_scores, abs=0.02)


def test_the_panel_of_another_package_is_asked_for_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    with pytest.raises(InvalidOptionError, match=r'pip install "cellvae\[scib\]"'):
        IntegrationEvaluation("batch", "kind", metrics="scib")
    monkeypatch.setitem(sys.modules, "scib_metrics", ModuleType("scib_metrics"))
    produced = IntegrationEvaluation("batch", "kind", metrics="scib").produced_metrics()
    assert produced[:3] == ["eval/scib_isolated_labels", "eval/scib_nmi", "eval/scib_ari"]


class Columns:
    """What a plan of the user's own knows of its cells."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def column(self, key: str, adata: Any = None) -> np.ndarray:
        assert (key, adata) == ("batch", None)
        return self.values


def test_it_works_in_a_trainer_of_the_users_own(module: Any, rows: Any, split: Any) -> None:
    evaluation = IntegrationEvaluation("batch", every_n_epochs=1, indices="train")
    files: Any = Columns(np.repeat(["a", "b"], 30))
    warmup = KLWarmup(n_epochs=1, n_steps=None, minimum=0.0, maximum=1.0)
    plan = TrainingPlan(module, seed=0, warmup=warmup, rows=rows, split=split, files=files)
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=[evaluation],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        trainer.fit(plan, EpochBlocks(rows, split.train, batch_size=16, seed=0))
    module.eval()
    latent = module.encode(rows.take(torch.from_numpy(split.train))).posterior.mean
    expected = integration_scores(latent.detach().numpy(), files.values[split.train])
    assert evaluation.scores[-1] == pytest.approx({"epoch": 1, **expected}, abs=1e-6)

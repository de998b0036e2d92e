"""Every callback runs with every model of the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torchmetrics import MeanMetric

import cellvae.train
from cellvae.errors import InvalidOptionError
from cellvae.train import (
    EMA,
    EarlyStopping,
    EpochBar,
    Freeze,
    GradNormMonitor,
    IntegrationEvaluation,
    LRMonitor,
    LRSchedulerCallback,
    MetricCallback,
    NaNGuard,
    PredictionWriter,
    PrintMetrics,
    ResourceMonitor,
    RetrievalEvaluation,
    RunLogger,
    SaveCheckpoint,
    ScibCallback,
    Stage,
    Stages,
    Summary,
    TrainingCheckpoint,
)

pytestmark = pytest.mark.trains


def in_first_layers(name: str, _: Any) -> bool:
    """Whether a parameter is of the encoder, or of the first layers of a classifier alone."""
    return "encoder" in name or name.startswith("classifier.0.")


OURS: dict[str, Callable[[Path], pl.Callback]] = {
    "EMA": lambda path: EMA(decay=0.9),
    "EarlyStopping": lambda path: EarlyStopping(patience=4),
    "EpochBar": lambda path: EpochBar(),
    "Freeze": lambda path: Freeze(in_first_layers, until_epoch=2),
    "GradNormMonitor": lambda path: GradNormMonitor(every_n_steps=1),
    "IntegrationEvaluation": lambda path: IntegrationEvaluation(
        "batch", "label", every_n_epochs=2, k=5
    ),
    "LRMonitor": lambda path: LRMonitor(log_momentum=True, log_weight_decay=True),
    "LRSchedulerCallback": lambda path: LRSchedulerCallback("cosine"),
    "MetricCallback": lambda path: MetricCallback(
        {"size": MeanMetric()}, prediction=lambda module, batch: (batch[0].sum(dim=-1),)
    ),
    "NaNGuard": lambda path: NaNGuard("skip_batch"),
    "PredictionWriter": lambda path: PredictionWriter(path / "latent.h5ad"),
    "PrintMetrics": lambda path: PrintMetrics(),
    "ResourceMonitor": lambda path: ResourceMonitor(path=path / "resources.tsv"),
    "RetrievalEvaluation": lambda path: RetrievalEvaluation(np.arange(20), label_key="label", k=5),
    "RunLogger": lambda path: RunLogger(path / "run"),
    "SaveCheckpoint": lambda path: SaveCheckpoint(path / "best", epochs=[1, 3], save_last=True),
    "ScibCallback": lambda path: ScibCallback(
        batch_key="batch", label_key="label", every_n_epochs=2
    ),
    "Stages": lambda path: Stages([Stage(epochs=2), Stage(epochs=2, lr_factor=0.1)]),
    "Summary": lambda path: Summary(),
    "TrainingCheckpoint": lambda path: TrainingCheckpoint(path / "state"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """Folder of a name, which is there."""

    def made(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name

    return made


def test_every_callback_of_the_package_is_in_the_list() -> None:
    names = {
        name
        for name in cellvae.train.__all__
        if isinstance(value := getattr(cellvae.train, name), type)
        and issubclass(value, pl.Callback)
    }
    assert names - {"LoudEarlyStopping", "RecordLearningRate"} == set(OURS)


def flat(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.module.state_dict().values()])


# Callbacks that read the latent.
READING = {"IntegrationEvaluation", "PredictionWriter", "RetrievalEvaluation", "ScibCallback"}


def refuses(case: Any, name: str) -> bool:
    """Whether a model has no latent, which a callback reads."""
    return name in READING and not hasattr(case.kind, "get_latent_representation")


# Callbacks whose job is to change what is trained.
CHANGING = {"EMA", "Freeze", "LRSchedulerCallback", "Stages"}
# Callbacks that bring the best weights back, of the last epoch or another.
RESTORING = {"EarlyStopping", "SaveCheckpoint"}


KWARGS = {"max_epochs": 5, "check_val_every_n_epoch": 1}


@pytest.fixture(scope="module")
def trained_plainly(train: Callable[..., None]) -> Callable[[Any], Any]:
    """Model of a case that was trained without callbacks, once; tests only read it."""

    models: dict[str, Any] = {}

    def find(case: Any) -> Any:
        if case.label not in models:
            models[case.label] = case.made()
            train(models[case.label], **KWARGS)
        return models[case.label]

    return find


def test_all_callbacks_run_together_twice(
    case: Any, train: Callable[..., None], tmp_path: Path
) -> None:
    left_out = {"LRSchedulerCallback", *(name for name in OURS if refuses(case, name))}
    made = [make(tmp_path) for name, make in OURS.items() if name not in left_out]
    model = case.made()
    train(model, max_epochs=3, callbacks=made)
    train(model, max_epochs=3, callbacks=made)
    assert model.history.epochs == [0, 1, 2, 3, 4, 5]
    assert model.training_report.status == "completed"


@pytest.mark.parametrize("name", OURS)
def test_a_callback_changes_what_it_is_there_for_and_its_run_resumes_bit_by_bit(
    case: Any,
    train: Callable[..., None],
    trained_plainly: Callable[[Any], Any],
    tmp_path: Path,
    folder: Callable[[str], Path],
    name: str,
) -> None:
    class Crash(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
            if trainer.current_epoch == 3:
                raise OSError("power")

    if refuses(case, name):
        with pytest.raises(InvalidOptionError, match="a model with a latent representation"):
            train(case.made(), callbacks=OURS[name](tmp_path), **KWARGS)
        return
    whole = case.made()
    train(whole, callbacks=OURS[name](folder("whole")), **KWARGS)
    check_effect(name, whole, trained_plainly(case))
    cut = case.made()
    with pytest.raises(OSError, match="power"):
        train(cut, callbacks=[OURS[name](folder("cut")), Crash()], resume="auto",
              default_root_dir=tmp_path, **KWARGS)  # fmt: skip
    again = case.made()
    train(again, callbacks=OURS[name](folder("cut")), resume="auto",
          default_root_dir=tmp_path, **KWARGS)  # fmt: skip
    assert again.training_report.resumed_epoch == 3
    assert torch.equal(flat(whole), flat(again))
    left = [c for c in whole.history.table if not c.startswith("resources/")]
    assert whole.history.table[left].equals(again.history.table[left])


def check_effect(name: str, model: Any, plain: Any) -> None:
    """Check that a callback has changed nothing but what it is there for."""
    assert model.is_trained
    assert model.history.epochs == [*range(5)]
    assert not any(part.training for part in model.module.modules())
    assert all(p.requires_grad for p in model.module.parameters())
    if name not in CHANGING | RESTORING:
        assert torch.equal(flat(plain), flat(model))
    if name not in CHANGING:
        shared = [c for c in plain.history.table if c in model.history.table]
        assert plain.history.table.equals(model.history.table[shared])
    if hasattr(model, "get_latent_representation"):
        assert np.isfinite(np.asarray(model.get_latent_representation())).all()

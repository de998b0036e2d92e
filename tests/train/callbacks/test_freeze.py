"""Parts that are frozen do not move by one bit, and learn once they are set free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData, read_h5ad

from cellvae.data import Split
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train import SaveCheckpoint
from cellvae.train.callbacks.freeze import Freeze, FrozenParts
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


class Watch(pl.Callback):
    """Keeps the state of the network before each epoch, and the flags during a step."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []
        self.modes: list[dict[str, bool]] = []

    def note(self, pl_module: Any) -> None:
        self.states.append({k: v.clone() for k, v in pl_module.module.state_dict().items()})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.note(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        self.modes.append({k: m.training for k, m in pl_module.module.named_modules()})

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.note(pl_module)

    def moved(self, epoch: int) -> set[str]:
        """Names of what an epoch changed."""
        before, after = self.states[epoch], self.states[epoch + 1]
        return {k for k in before if not torch.equal(before[k], after[k])}


def run(module: Any, rows: Any, split: Split, *callbacks: pl.Callback, **kwargs: Any) -> RunResult:
    given = {"max_epochs": 4, "enable_progress_bar": False, "batch_size": 16, "accelerator": "cpu"}
    parsed = parse_train_kwargs({**given, "callbacks": list(callbacks), **kwargs})
    return fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)


def within(module: torch.nn.Module, part: str) -> set[str]:
    return {k for k in module.state_dict() if k.startswith(f"{part}.")}


@pytest.mark.parametrize("validate", [None, 1])
def test_a_frozen_part_stays_bit_for_bit_its_running_statistics_too(
    module: Any, rows: Any, split: Split, validate: int | None
) -> None:
    watch = Watch()
    run(module, rows, split, Freeze("z_encoder"), watch, check_val_every_n_epoch=validate)
    encoder, decoder = within(module, "z_encoder"), within(module, "decoder")
    for epoch in range(4):
        assert watch.moved(epoch) & encoder == set()
        assert decoder <= watch.moved(epoch)


def test_a_part_that_is_set_free_learns_from_that_epoch_on(
    module: Any, rows: Any, split: Split
) -> None:
    watch = Watch()
    run(module, rows, split, Freeze("z_encoder", until_epoch=2), watch)
    encoder = within(module, "z_encoder")
    assert [watch.moved(i) & encoder == set() for i in range(4)] == [True, True, False, False]
    assert encoder <= watch.moved(2)


def test_batch_norm_may_be_left_to_move(module: Any, rows: Any, split: Split) -> None:
    watch = Watch()
    run(module, rows, split, Freeze("z_encoder", freeze_batch_norm=False), watch)
    moved = {k.rpartition(".")[2] for k in watch.moved(0) & within(module, "z_encoder")}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}


def test_normalisation_and_dropout_of_the_part_are_in_eval_mode_and_no_others(
    module: Any, rows: Any, split: Split
) -> None:
    watch = Watch()
    run(module, rows, split, Freeze("z_encoder"), watch, check_val_every_n_epoch=1)
    layers = {
        k
        for k, m in module.named_modules()
        if isinstance(m, torch.nn.BatchNorm1d | torch.nn.Dropout) and k.startswith("z_encoder")
    }
    assert len(layers) == 2
    for modes in watch.modes:
        assert {k for k, training in modes.items() if not training} == layers


def test_a_mode_that_something_else_set_does_not_last(module: Any, rows: Any, split: Split) -> None:
    class Meddler(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            pl_module.module.train()

    watch = Watch()
    run(module, rows, split, Freeze("z_encoder"), Meddler(), watch)
    assert all(watch.moved(i) & within(module, "z_encoder") == set() for i in range(4))


def test_flags_of_the_user_are_as_before_at_the_end(module: Any, rows: Any, split: Split) -> None:
    module.px_r.requires_grad_(False)
    module.z_encoder.mean_encoder.bias.requires_grad_(False)
    before = {k: p.requires_grad for k, p in module.named_parameters()}
    run(module, rows, split, Freeze(["z_encoder", "px_r"], until_epoch=1))
    assert {k: p.requires_grad for k, p in module.named_parameters()} == before
    run(module, rows, split, Freeze(["z_encoder", "px_r"]))
    assert {k: p.requires_grad for k, p in module.named_parameters()} == before


def test_flags_are_as_before_after_an_error_too(module: Any, rows: Any, split: Split) -> None:
    class Fails(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            raise RuntimeError("no more")

    outcome = run(module, rows, split, Freeze("z_encoder"), Fails())
    assert isinstance(outcome.error, RuntimeError)
    assert all(p.requires_grad for p in module.parameters())


def test_a_function_chooses_the_same_as_the_name(module: Any) -> None:
    by_name = FrozenParts(module, "z_encoder")
    by_function = FrozenParts(module, lambda name, parameter: name.startswith("z_encoder."))
    assert [id(p) for p in by_name.parameters] == [id(p) for p in by_function.parameters]
    assert [id(m) for m in by_name.layers] == [id(m) for m in by_function.layers]
    assert len(by_name.parameters) == len(list(module.z_encoder.parameters()))


def test_single_parameters_can_be_frozen(module: Any, rows: Any, split: Split) -> None:
    watch = Watch()
    run(module, rows, split, Freeze("px_r"), watch)
    assert watch.moved(0) == set(module.state_dict()) - {"px_r"}


def test_one_instance_serves_two_models(module: Any, rows: Any, split: Split) -> None:
    freeze, watch = Freeze("z_encoder"), Watch()
    run(module, rows, split, freeze, max_epochs=1)
    other = type(module)(module.sizes, module.config) if "sizes" in vars(module) else module
    run(other, rows, split, freeze, watch, max_epochs=2)
    assert watch.moved(0) & within(other, "z_encoder") == set()


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ({"modules": "z_encodr"}, "got 'z_encodr'. Did you mean 'z_encoder'"),
        ({"modules": ["px_r", "z_encoder", "decoder"]}, "leave something to train"),
        ({"modules": lambda name, parameter: False}, "chose none"),
    ],
)
def test_what_cannot_be_frozen_is_told(
    module: Any, rows: Any, split: Split, freeze: dict[str, Any], message: str
) -> None:
    outcome = run(module, rows, split, Freeze(**freeze))
    assert isinstance(outcome.error, InvalidOptionError)
    assert message in str(outcome.error)
    with pytest.raises(InvalidOptionError, match="until_epoch to be at least 0; got -1"):
        Freeze("z_encoder", until_epoch=-1)


def test_it_works_in_a_bare_trainer() -> None:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return self.last(self.first(batch)).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    line = Line()
    first, last = line.first.weight.detach().clone(), line.last.weight.detach().clone()
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", callbacks=[Freeze("first")],
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.ones(4, 2))
    fit_quietly(trainer, line, loader)
    assert torch.equal(line.first.weight, first)
    assert not torch.equal(line.last.weight, last)


def fit_quietly(trainer: pl.Trainer, module: pl.LightningModule, loader: Any) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader)


def test_the_encoder_of_real_cells_is_kept(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")
    adata = adata[:300, np.asarray(adata.X.sum(0)).ravel().argsort()[-200:]].copy()
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=16, n_latent=4)
    kwargs = {"accelerator": "cpu", "enable_progress_bar": False, "seed": 0}
    model.train(max_epochs=2, **kwargs)
    before = model.get_latent_representation()
    model.train(max_epochs=2, callbacks=Freeze("z_encoder"), **kwargs)
    assert np.array_equal(before, model.get_latent_representation())
    model.train(max_epochs=2, **kwargs)
    assert not np.array_equal(before, model.get_latent_representation())


def test_saving_models_on_the_way_does_not_set_a_part_free(tmp_path: Path) -> None:
    adata = AnnData(np.random.default_rng(0).poisson(3.0, (60, 10)).astype(np.float32))
    adata.obs_names = [f"cell{i}" for i in range(60)]
    SCVI.setup_anndata(adata)
    model, watch = SCVI(adata, n_hidden=8, n_latent=2), Watch()
    saver = SaveCheckpoint(tmp_path, monitor="elbo_train", save_top_k=-1)
    kwargs = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 4}
    model.train(callbacks=[Freeze("z_encoder"), saver, watch], batch_size=16, **kwargs)
    assert len(saver.best_k_models) == 4
    assert not any(watch.moved(i) & within(model.module, "z_encoder") for i in range(4))


def test_a_module_left_in_eval_mode_is_trained_in_train_mode(
    module: Any, rows: Any, split: Split
) -> None:
    module.eval()
    watch = Watch()
    run(module, rows, split, watch)
    assert all(all(modes.values()) for modes in watch.modes)
    assert not any(m.training for m in module.modules())


class Crash(pl.Callback):
    """Raises in the second batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.current_epoch == self.epoch and rest[-1] == 1:
            raise OSError("disk full")


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_that_was_cut_off_goes_on_bit_by_bit(tmp_path: Path, epoch: int) -> None:
    def made() -> SCVI:
        adata = AnnData(np.random.default_rng(0).poisson(3.0, (60, 10)).astype(np.float32))
        adata.obs_names = [f"cell{i}" for i in range(60)]
        SCVI.setup_anndata(adata)
        torch.manual_seed(0)
        return SCVI(adata, n_hidden=8, n_latent=2)

    kwargs: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 5}
    kwargs |= {"batch_size": 16, "seed": 3}
    whole, broken, again = made(), made(), made()
    whole.train(callbacks=Freeze("z_encoder", until_epoch=2), **kwargs)
    kwargs |= {"resume": "auto", "run_dir": tmp_path}
    with pytest.raises(OSError, match="disk full"):
        broken.train(callbacks=[Freeze("z_encoder", until_epoch=2), Crash(epoch)], **kwargs)
    again.train(callbacks=Freeze("z_encoder", until_epoch=2), **kwargs)
    state = again.module.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in whole.module.state_dict().items())

"""An adversarial classifier beside the network: what it computes, and all that a run can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.errors import InvalidOptionError, ResumeError
from cellvae.model import MODELS, PEAKVI, SCANVI, SCVI
from cellvae.persistence.training_state import read_state
from cellvae.train import EMA
from cellvae.train.callbacks.checkpointing.training_checkpoint import states_to_try
from cellvae.train.loop.steps.adversarial_step import AdversarialStep
from cellvae.train.loop.steps.gradient_step import GradientStep
from cellvae.train.loop.steps.step_choice import make_step
from cellvae.train.options.adversarial_options import AdversarialOptions
from cellvae.train.options.optimizer_options import OptimizerOptions
from cellvae.train.resume.training_state import TrainingState

QUICK: dict[str, Any] = {
    "max_epochs": 4,
    "batch_size": 16,
    "accelerator": "cpu",
    "seed": 0,
    "enable_progress_bar": False,
    "check_val_every_n_epoch": 1,
    "adversarial_classifier": True,
}
FOOLING, GUESSING = "adversarial_loss_train", "adversarial_classifier_loss_train"


@pytest.fixture
def cells() -> AnnData:
    adata = cellvae.data.synthetic_iid(batch_size=100, n_genes=12, n_proteins=0, n_regions=0)
    adata.obs["seen"] = np.where(np.arange(200) % 3 == 0, "Unknown", adata.obs["labels"])
    return adata


@pytest.fixture
def made(cells: AnnData) -> Callable[..., Any]:
    def make(kind: Any = SCVI, **config: Any) -> Any:
        if kind is SCANVI:
            SCANVI.setup_anndata(cells, "seen", "Unknown", batch_key="batch")
        else:
            kind.setup_anndata(cells, batch_key="batch")
        torch.manual_seed(0)
        return kind(cells, **{"n_hidden": 8, "n_latent": 3, **config})

    return make


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[AdversarialStep]:
    """Steps that were made, in their order."""
    made: list[AdversarialStep] = []
    original = AdversarialStep.__init__

    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(AdversarialStep, "__init__", noting)
    return made


def same(first: Any, second: Any) -> bool:
    """Whether two trained models are equal bit by bit, their histories too."""
    one, two = first.module.state_dict(), second.module.state_dict()
    return all(torch.equal(one[k], two[k]) for k in one) and first.history.table.equals(
        second.history.table
    )


def same_classifier(first: AdversarialStep, second: AdversarialStep) -> bool:
    one, two = first.classifier.state_dict(), second.classifier.state_dict()
    return all(torch.equal(one[k], two[k]) for k in one)


def batch_of(model: Any, n: int = 40) -> Any:
    return model.rows.take(torch.arange(0, 200, 200 // n))


def test_losses_are_the_cross_entropies_of_their_definition(made: Callable[..., Any]) -> None:
    model = made()
    step = AdversarialStep(model.module, seed=3)
    z, codes = torch.randn(10, 3), torch.arange(10) % 2
    step.classifier.eval()
    log_probs = step.classifier(z).log_softmax(dim=-1).detach()
    true = -log_probs[torch.arange(10), codes].mean()
    other = -log_probs[torch.arange(10), 1 - codes].mean()
    torch.testing.assert_close(step.cross_entropy(z, codes, fool=False).detach(), true)
    torch.testing.assert_close(step.cross_entropy(z, codes, fool=True).detach(), other)


def test_fooling_is_against_equal_probabilities_of_all_other_classes() -> None:
    sizes = cellvae.model.scvi.SCVISizes(n_genes=5, n_batch=4)
    module = cellvae.model.scvi.SCVIModule(sizes, cellvae.model.scvi.SCVIConfig(n_latent=3))
    step = AdversarialStep(module)
    step.classifier.eval()
    z, codes = torch.randn(7, 3), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    log_probs = step.classifier(z).log_softmax(dim=-1).detach()
    wanted = -sum(log_probs[i, c] / 3 for i in range(7) for c in range(4) if c != codes[i]) / 7
    torch.testing.assert_close(step.cross_entropy(z, codes, fool=True).detach(), wanted)


def test_fooling_has_a_gradient_for_the_latent_alone(made: Callable[..., Any]) -> None:
    model = made()
    step = AdversarialStep(model.module)
    step.make_optimizers(model.module, OptimizerOptions())
    before = [p.clone() for p in step.parameters]
    z = torch.randn(10, 3, requires_grad=True)
    step.cross_entropy(z, torch.arange(10) % 2, fool=True).backward()
    assert z.grad is not None and z.grad.abs().max() > 0
    assert all(p.grad is None for p in step.parameters)
    assert all(torch.equal(a, b) for a, b in zip(before, step.parameters, strict=True))


@pytest.mark.parametrize("kind", [SCVI, SCANVI, PEAKVI])
def test_the_loss_has_a_further_weighted_term(made: Callable[..., Any], kind: Any) -> None:
    model = made(kind)
    module, batch = model.module.eval(), batch_of(model)
    assert module.adversarial_targets(batch).tolist() == batch.batch.squeeze(-1).tolist()
    step = AdversarialStep(module)
    step.classifier.eval()
    torch.manual_seed(5)
    plain = module.loss(batch, torch.tensor(0.25))
    assert plain.latent is not None and plain.latent.shape == (40, 3)
    step.begin_epoch(only_finite=True)
    step.set_kl_weight(0.25)
    torch.manual_seed(5)
    loss = step.loss(batch, torch.tensor(0.25))
    fooling = step.metrics()[FOOLING].float()
    torch.testing.assert_close(loss.loss, plain.loss + 0.75 * fooling)
    assert (loss.latent == plain.latent).all()


def test_nothing_happens_at_full_kl_weight(made: Callable[..., Any]) -> None:
    model = made()
    step = AdversarialStep(model.module.eval())
    (_, own) = step.make_optimizers(model.module, OptimizerOptions())
    before = [p.clone() for p in step.parameters]
    for weight in (1.0, 1.5):
        step.begin_epoch(only_finite=True)
        step.set_kl_weight(weight)
        torch.manual_seed(5)
        loss = step.loss(batch_of(model), torch.tensor(weight)).loss
        after = torch.rand(())
        step.finish()
        torch.manual_seed(5)
        assert loss == model.module.loss(batch_of(model), torch.tensor(weight)).loss
        assert after == torch.rand(())
        assert step.metrics() == {} and not own.state
    assert all(torch.equal(a, b) for a, b in zip(before, step.parameters, strict=True))


@pytest.mark.parametrize("scale", ["auto", 0.5])
@pytest.mark.trains
def test_metrics_are_logged_while_the_losses_count(made: Callable[..., Any], scale: Any) -> None:
    model = made()
    plan = {"n_epochs_kl_warmup": 2, "scale_adversarial_loss": scale}
    model.train(**QUICK, plan_kwargs=plan)
    table = model.history.table
    counted = 2 if scale == "auto" else 4
    for name in (FOOLING, GUESSING):
        assert table[name].notna().tolist() == [i < counted for i in range(4)]
        # Two batches: chance is log 2 for a classifier that does not know yet.
        assert table[name].dropna().between(0.5, 1.2).all()
    assert "adversarial_loss_validation" not in table
    weight = (1 - table["kl_weight"]) if scale == "auto" else scale
    elbo = table["reconstruction_loss_train"] + table["kl_weight"] * table["kl_local_train"]
    added = (table["train_loss"] - elbo) / weight
    np.testing.assert_allclose(added[:counted], table[FOOLING][:counted], rtol=1e-3)


@pytest.mark.trains
def test_a_classifier_can_be_monitored(made: Callable[..., Any]) -> None:
    model = made()
    model.train(**QUICK, early_stopping=FOOLING, early_stopping_patience=50)
    assert model.training_report.status == "completed"
    with pytest.raises(InvalidOptionError, match=FOOLING):
        made().train(**QUICK | {"adversarial_classifier": False}, early_stopping=FOOLING)


class NoHooks:
    """Hooks that do nothing."""

    def before_backward(self, loss: Any) -> None:
        pass

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        pass


@pytest.mark.trains
def test_the_classifier_learns_the_batches_and_the_latent_to_hide_them() -> None:
    rng = np.random.default_rng(0)
    batch = np.arange(200) % 2
    adata = AnnData(rng.poisson(rng.gamma(2.0, 3.0, (2, 30))[batch]).astype(np.float32))
    adata.obs["batch"] = np.array(["a", "b"])[batch]
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=16, n_latent=3, dropout_rate=0.0)
    plain, step = GradientStep(model.module.train()), AdversarialStep(model.module, scale=50.0)
    optimizer = step.make_optimizers(model.module, OptimizerOptions(lr=5e-3, weight_decay=0.0))[0]

    for _ in range(200):
        plain.update(batch_of(model, 200), torch.tensor(0.1), optimizer, NoHooks())

    def train(n_steps: int, rate: float) -> tuple[float, float]:
        """Mean fooling and classifier losses of the last steps."""
        optimizer.param_groups[0]["lr"] = rate
        for i in range(n_steps):
            if i in (0, n_steps - 20):
                step.begin_epoch(only_finite=True)
                step.set_kl_weight(0.5)
            step.update(batch_of(model, 200), torch.tensor(0.1), optimizer, NoHooks())
        metrics = step.metrics()
        return float(metrics[FOOLING]), float(metrics[GUESSING])

    fooling, guessing = train(400, 0.0)
    assert guessing < 0.45 and fooling > 1.5
    # The latent is as wrong as it is right for the classifier: log 2 is chance.
    fooling, guessing = train(400, 2e-3)
    assert guessing > 0.6 and fooling < 1.0


CONSTANT = {"kl_weight": 0.3}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "constant weight": {"plan_kwargs": {"scale_adversarial_loss": 1.5}},
    "warm-up by steps": {"plan_kwargs": {"n_epochs_kl_warmup": None, "n_steps_kl_warmup": 30}},
    "accumulated": {"accumulate": {0: 2}},
    "clipped": {"gradient_clip_val": 1.0},
    "average": {"callbacks": [EMA(0.9)]},
    "half": {"precision": "bf16-mixed"},
    "double": {"precision": "64-true"},
    "skipping": {"on_nan": "skip_batch"},
}


class Cut(pl.Callback):
    """Ctrl-C at the beginning of an epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.trains
@pytest.mark.parametrize("train_kwargs", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_run_is_resumed_bit_by_bit(
    made: Callable[..., Any],
    tmp_path: Path,
    train_kwargs: dict[str, Any],
    steps: list[AdversarialStep],
) -> None:
    callbacks = train_kwargs.get("callbacks", [])
    kwargs = {**QUICK, "plan_kwargs": CONSTANT, **train_kwargs, "resume": "auto"}
    whole, cut, again = made(), made(), made()
    whole.train(**kwargs, run_dir=tmp_path / "whole")
    cut.train(**{**kwargs, "callbacks": [*callbacks, Cut()]}, run_dir=tmp_path / "cut")
    again.train(**kwargs, run_dir=tmp_path / "cut")
    assert again.training_report.resumed_epoch == 2
    assert same(whole, again) and same_classifier(steps[0], steps[2])
    assert not same_classifier(steps[0], steps[1])
    plain = made()
    plain.train(**{**kwargs, "adversarial_classifier": False}, run_dir=tmp_path / "plain")
    assert not same(whole, plain)


@pytest.mark.trains
def test_a_run_is_not_resumed_without_its_classifier(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    kwargs = {**QUICK, "resume": "auto", "run_dir": tmp_path}
    made().train(**kwargs, callbacks=[Cut()])
    with pytest.raises(ResumeError, match="adversarial_classifier"):
        made().train(**kwargs | {"adversarial_classifier": False})
    with pytest.raises(ResumeError, match="scale: 'auto' in the saved run, 2.0 now"):
        made().train(**kwargs, plan_kwargs={"scale_adversarial_loss": 2.0})


@pytest.mark.trains
def test_a_second_training_goes_on_with_the_classifier(
    made: Callable[..., Any], steps: list[AdversarialStep], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made()
    model.train(**QUICK)
    started = []
    load = AdversarialStep.load_state_dict

    def noting(self: AdversarialStep, state: Any) -> None:
        load(self, state)
        started.append(self.state_dict())

    monkeypatch.setattr(AdversarialStep, "load_state_dict", noting)
    first = steps[0].state_dict()
    model.train(**QUICK)
    (second,) = started
    assert all(torch.equal(first["classifier"][k], v) for k, v in second["classifier"].items())
    assert second["optimizer"]["state"][0]["step"] == first["optimizer"]["state"][0]["step"] > 0
    # A run without a classifier is none of its business, nor one with other cells.
    model.train(**QUICK | {"adversarial_classifier": False})
    model.train(**QUICK)
    assert len(started) == 1


@pytest.mark.trains
@pytest.mark.parametrize("k", [1, "auto"])
def test_a_loss_of_the_classifier_that_is_not_finite_leaves_the_whole_step_out(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, steps: list[AdversarialStep], k: Any
) -> None:
    original, calls = AdversarialStep.cross_entropy, []

    def spoilt(self: Any, z: Any, targets: Any, *, fool: bool) -> Any:
        loss = original(self, z, targets, fool=fool)
        calls.append(fool)
        return loss * torch.nan if len(calls) == 9 else loss

    monkeypatch.setattr(AdversarialStep, "cross_entropy", spoilt)
    model = made()
    model.train(**QUICK, plan_kwargs=CONSTANT, on_nan="skip_batch", steps_per_block=k)
    assert calls[8]
    report = model.training_report
    assert (report.n_skipped, report.nan["batch"], report.nan["quantity"]) == (1, 4, "loss")
    weights = [*model.module.state_dict().values(), *steps[0].classifier.state_dict().values()]
    assert all(torch.isfinite(value).all() for value in weights)
    assert np.isfinite(model.history.table[FOOLING]).all()
    (own,) = steps[0].own_optimizers
    assert {int(state["step"]) for state in own.state.values()} == {4 * 12 - 1}


@pytest.mark.trains
def test_a_step_that_is_left_out_changes_nothing_of_the_classifier(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, steps: list[AdversarialStep]
) -> None:
    model = made()
    loss, calls, states = model.module.loss, [], []

    def spoilt(batch: Any, weight: Any) -> Any:
        calls.append(1)
        states.append(steps[0].state_dict())
        found = loss(batch, weight)
        return found._replace(loss=found.loss * torch.nan) if len(calls) == 5 else found

    monkeypatch.setattr(model.module, "loss", spoilt)
    train_kwargs = QUICK | {"max_epochs": 1, "check_val_every_n_epoch": None}
    model.train(**train_kwargs, on_nan="skip_batch")
    # The sixth call finds the cells of the fifth; the seventh is the next step.
    before, after = states[4]["classifier"], states[6]["classifier"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(torch.equal(states[3]["classifier"][n], before[n]) for n in before)


@pytest.mark.trains
def test_frozen_weights_stay_and_a_query_learns(made: Callable[..., Any], cells: AnnData) -> None:
    reference = made(encode_covariates=True)
    reference.train(**QUICK)
    query = cells[::2].copy()
    query.obs["batch"] = np.where(np.arange(100) % 2, "new", "newer")
    model = SCVI.load_query_data(query, reference)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    model.train(**QUICK, plan_kwargs={"weight_decay": 0.1})
    frozen = {name for name, p in model.module.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(torch.equal(before[k], model.module.state_dict()[k]) for k in frozen)
    assert model.history.table[FOOLING].notna().any()


@pytest.mark.trains
def test_labels_are_learned_beside(made: Callable[..., Any]) -> None:
    models = []
    for k in (1, "auto"):
        model = made(SCANVI)
        model.train(**QUICK, steps_per_block=k, n_samples_per_label=7)
        models.append(model)
    assert same(*models)
    assert models[0].history.table[GUESSING].between(0.4, 1.2).any()


@pytest.mark.trains
def test_searches_train_the_classifier_too(
    made: Callable[..., Any], steps: list[AdversarialStep]
) -> None:
    model = made()
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    plain = model.lr_find(num_steps=20, seed=0)
    found = model.lr_find(num_steps=20, seed=0, plan_kwargs={"adversarial_classifier": True})
    assert len(steps) == 1 and steps[0].scale == 1.0
    added = np.subtract(found.losses[0], plain.losses[0])
    assert 0.4 < added < 1.2  # one more cross-entropy of two classes
    size = model.find_batch_size(start=64, max_val=64, plan_kwargs={"adversarial_classifier": True})
    assert size == 64 and len(steps) == 2
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())


def test_who_gets_a_classifier(made: Callable[..., Any]) -> None:
    module = made().module

    def step(choice: Any) -> Any:
        return make_step(module, AdversarialOptions(classifier=choice), seed=0)

    assert type(step("auto")) is type(step(None)) is type(step(False)) is GradientStep
    assert type(step(True)) is AdversarialStep
    module.adversarial = True
    assert type(step("auto")) is type(step(None)) is AdversarialStep
    assert type(step(False)) is GradientStep
    module.n_adversarial_classes = 1
    assert type(step("auto")) is GradientStep


def test_a_classifier_without_anything_to_tell_apart_is_refused(cells: AnnData) -> None:
    SCVI.setup_anndata(cells)
    with pytest.raises(InvalidOptionError, match="at least two batches"):
        SCVI(cells, n_latent=2).train(**QUICK)
    lda = MODELS["AmortizedLDA"]
    lda.setup_anndata(cells)
    with pytest.raises(InvalidOptionError, match="AmortizedLDA has none"):
        lda(cells, n_topics=2).train(**QUICK)


@pytest.mark.parametrize(
    ("train_kwargs", "message"),
    [
        ({"adversarial_classifier": "yes"}, "adversarial_classifier to be"),
        ({"plan_kwargs": {"scale_adversarial_loss": -1.0}}, "scale_adversarial_loss to be"),
        ({"plan_kwargs": {"scale_adversarial_loss": "big"}}, "scale_adversarial_loss to be"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(
    made: Callable[..., Any], train_kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        made().train(**QUICK | train_kwargs)


@pytest.mark.trains
def test_lightnings_search_of_a_rate_puts_the_classifier_back(
    made: Callable[..., Any], steps: list[AdversarialStep]
) -> None:
    seen: list[Any] = []

    class Looks(pl.callbacks.LearningRateFinder):
        def lr_find(self, trainer: pl.Trainer, pl_module: Any) -> None:
            seen.append(steps[0].state_dict()["classifier"])
            super().lr_find(trainer, pl_module)
            seen.append(steps[0].state_dict()["classifier"])

    made().train(**QUICK, callbacks=[Looks(num_training_steps=15, early_stop_threshold=None)])
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


@pytest.mark.trains
def test_a_state_from_before_there_were_steps_is_read(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    train_kwargs = QUICK | {"adversarial_classifier": "auto"}
    made().train(**train_kwargs, callbacks=[Cut()], resume="auto", run_dir=tmp_path)
    (path, *_) = states_to_try(tmp_path)
    values = read_state(path)
    assert values.pop("step") == {}
    assert TrainingState.from_values(values, path).step == {}

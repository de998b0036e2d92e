"""Flags of `cellvae train`: made from the options of each model, so that they cannot drift."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from cellvae.cli import train as command
from cellvae.cli.checks import check_options
from cellvae.cli.doublets import class_of_cells
from cellvae.cli.flags import Flag, value_from_text
from cellvae.cli.job import Job
from cellvae.cli.model_flags import flags_of, group_by_call
from cellvae.core.docstrings import parameter_help
from cellvae.model import MODELS
from cellvae.model.scvi import SCVIConfig
from cellvae.train.options.train_kwargs import parse_train_kwargs

# What can be typed for flags whose values are neither a number nor a choice.
TYPED = {
    "accelerator": "cpu",
    "devices": ["1"],
    "lr_schedule": "cosine",
    "batch_embedding_kwargs": '{"embedding_dim": 3}',
    "classifier_parameters": '{"n_layers": 2}',
    "y_prior": ["0.25", "0.75"],
    "extra_encoder_kwargs": "{}",
    "missing_proteins": '{"b": ["p"]}',
    "extra_decoder_kwargs": '{"activation_function_bg": "exp"}',
    "train_size": "0.5",
    "validation_size": "0.25",
    "optimizer": "AdamW",
}
# Together they would contradict each other.
APART = {"n_steps_kl_warmup", "n_epochs_kl_warmup", "min_kl_weight", "kl_weight"}
MEANT = {
    "devices": "1",
    "batch_embedding_kwargs": {"embedding_dim": 3},
    "classifier_parameters": {"n_layers": 2},
    "y_prior": [0.25, 0.75],
    "extra_encoder_kwargs": {},
    "missing_proteins": {"b": ["p"]},
    "extra_decoder_kwargs": {"activation_function_bg": "exp"},
    "train_size": 0.5,
    "validation_size": 0.25,
}


def typed_value(flag: Flag) -> Any:
    """Something that can be typed for a flag."""
    if flag.is_switch:
        return True
    texts = {"INTEGER": "2", "NUMBER": "0.5"}
    choice = flag.choices[0] if flag.choices else texts.get(flag.metavar or "", "text")
    value = TYPED.get(flag.name, choice)
    return [value] if flag.is_repeatable and isinstance(value, str) else value


@pytest.mark.parametrize("model", MODELS)
def test_every_flag_reaches_the_keyword_of_its_name(
    model: str, program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(command, "run_job", lambda adata, job, out, overwrite: jobs.append(job))
    monkeypatch.setattr(command, "print_summary", lambda model, out: None)
    monkeypatch.setattr("cellvae.data.files.h5mu.read_cells", lambda path: None)
    counts = tmp_path / "counts.h5ad"
    counts.write_text("")
    parameters = set(inspect.signature(MODELS[model].setup_anndata).parameters)
    of_mudata = getattr(MODELS[model], "setup_mudata", MODELS[model].setup_anndata)
    elsewhere = set(inspect.signature(of_mudata).parameters) - parameters
    flags = [f for f in flags_of(MODELS[model]) if f.name not in APART | elsewhere]
    given = {flag.name: typed_value(flag) for flag in flags}
    arguments: list[object] = []
    for flag in flags:
        value = given[flag.name]
        for each in value if isinstance(value, list) else [value]:
            arguments += [flag.spelling] if each is True else [flag.spelling, each]
    ended = program("train", counts, "--out", tmp_path / "out", "--model", model, *arguments)
    assert ended.code == 0, ended.err
    (job,) = jobs
    train = dict(job.train)
    inner = {**train.pop("plan_kwargs"), **train.pop("datasplitter_kwargs")}
    calls = {f.name: getattr(job, f.name) for f in flags if f.place == "calls"}
    told = {**job.setup, **job.config, **train, **inner, **calls}
    assert set(told) == set(given)
    for flag in flags:
        if flag.name in MEANT:
            assert told[flag.name] == MEANT[flag.name]
        elif flag.metavar in ("INTEGER", "NUMBER") and not flag.is_repeatable:
            expected = flag.choices[0] if flag.choices else float(given[flag.name])
            assert told[flag.name] == expected, flag.name
    setup = inspect.signature(class_of_cells(MODELS[model]).setup_anndata).parameters
    assert set(job.setup) == set(setup) - {"adata"}
    check_options(job.model, job.setup, job.config, job.train)


@pytest.mark.parametrize("model", MODELS)
def test_every_option_is_a_flag_with_help_and_the_default_that_holds(model: str) -> None:
    kind: Any = MODELS[model]
    flags = {flag.name: flag for flag in flags_of(kind)}
    assert len(flags) == len(flags_of(kind))
    for field in dataclasses.fields(kind.Config):
        assert flags[field.name].default == field.default
    for name, flag in flags.items():
        assert len(flag.help) > 8, name
        assert "`" not in flag.help, name
        if flag.default not in (None, ()):
            assert flag.describe().endswith(")"), name


@pytest.mark.parametrize(
    ("model", "name", "default"),
    [
        ("SCVI", "gene_likelihood", "zinb"),
        ("LinearSCVI", "gene_likelihood", "nb"),
        ("SCVI", "lr", 1e-3),
        ("PEAKVI", "lr", 1e-4),
        ("PEAKVI", "optimizer", "AdamW"),
        ("PEAKVI", "early_stopping", True),
        ("PEAKVI", "early_stopping_patience", 50),
        ("SCVI", "early_stopping_patience", 45),
        ("PEAKVI", "max_epochs", 500),
        ("SCVI", "max_epochs", "400, fewer above 20,000 cells"),
        ("AmortizedLDA", "max_epochs", "1000, fewer above 20,000 cells"),
        ("AmortizedLDA", "weight_decay", 0.0),
        ("SCANVI", "classification_ratio", 50.0),
        ("SCVI", "n_epochs_kl_warmup", "auto"),
    ],
)
def test_help_has_the_defaults_of_the_model(model: str, name: str, default: object) -> None:
    (flag,) = (flag for flag in flags_of(MODELS[model]) if flag.name == name)
    assert flag.default == default


def test_words_of_one_model_are_no_flags_of_another() -> None:
    names = {model: {flag.name for flag in flags_of(kind)} for model, kind in MODELS.items()}
    only_scanvi = {"unlabeled_category", "n_samples_per_label", "classification_ratio", "y_prior"}
    assert only_scanvi <= names["SCANVI"] - names["SCVI"]
    assert "n_topics" not in names["SCVI"]
    assert "n_latent" not in names["AmortizedLDA"]


@pytest.mark.parametrize("model", ["SCVI", "PEAKVI"])
def test_help_lists_every_flag(model: str, program: Callable[..., Any]) -> None:
    ended = program("train", "--model", model, "--help")
    assert ended.code == 0
    for flag in flags_of(MODELS[model]):
        assert flag.spelling in ended.out
        assert not flag.is_switch or f"--no-{flag.spelling[2:]}" in ended.out
    for name in command.program_flags():
        assert f"--{name.replace('_', '-')}" in ended.out
    panels = ("Data", "Network", "Training", "Optimizer", "Early stopping", "Output")
    places = [ended.out.index(f"─ {panel} ─") for panel in panels]
    assert places == sorted(places)
    assert "cellvae train counts.h5ad --out run/" in ended.out
    assert "half of the run, at most 400 epochs" in " ".join(ended.out.replace("│", "").split())
    assert all(name in ended.out for name in MODELS)


def test_help_of_an_unknown_model_names_the_closest(program: Callable[..., Any]) -> None:
    ended = program("train", "--model=PEAKV", "--help")
    assert ended.code == 2
    assert "Did you mean 'PEAKVI'?" in ended.err


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("1e-3", float | None, 1e-3),
        ("None", int | None, None),
        ("None", str | None, "None"),
        ("none", Literal["none", "both"], "none"),
        ("auto", int | Literal["auto"] | None, "auto"),
        ("7", int | Literal["auto"] | None, 7),
        ("3", str, "3"),
        ("three", int, "three"),
    ],
)
def test_texts_become_what_the_annotation_names(text: str, hint: Any, value: object) -> None:
    found = value_from_text(text, hint)
    assert (type(found), found) == (type(value), value)


def test_what_was_not_typed_is_not_given() -> None:
    flags = flags_of(MODELS["SCVI"])
    arguments = group_by_call(flags, dict.fromkeys((flag.name for flag in flags), None))
    assert arguments == {"setup": {}, "config": {}, "calls": {}, "train": {}}
    assert parse_train_kwargs(arguments["train"]).options.early_stopping is None


def test_descriptions_are_read_through_the_bases() -> None:
    class Base:
        """First.

        Parameters
        ----------
        a, b
            Two `things`
            of :class:`~x.Y`.
        c
            Third.

        Raises
        ------
        ValueError
            Never.
        """

    class Derived(Base):
        """Second.

        Parameters
        ----------
        c
            As in :class:`Base`.
        b
            Own.
        """

    text = "Two things of x.Y."
    assert parameter_help(Derived) == {"a": text, "b": "Own.", "c": "Third."}
    assert "Dimensions of the latent space" in parameter_help(SCVIConfig)["n_latent"]

"""Settings of the process."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import cellvae
from cellvae.errors import InvalidOptionError, UnknownOptionError
from cellvae.settings import Settings, settings


@pytest.fixture
def own() -> Iterator[Settings]:
    """Settings of their own; what they change of the process is put back."""
    state, numpy_state, python_state = (
        torch.get_rng_state(), np.random.get_state(), random.getstate()
    )  # fmt: skip
    level, threads = logging.getLogger("cellvae").level, torch.get_num_threads()
    yield Settings()
    torch.set_rng_state(state)
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    logging.getLogger("cellvae").setLevel(level)
    torch.set_num_threads(threads)


def test_the_package_has_one_settings_object() -> None:
    assert cellvae.settings is settings


def test_defaults_are_those_of_scvi_tools(own: Settings) -> None:
    assert own.seed is None
    assert own.batch_size == 128
    assert own.progress_bar is True


def test_a_seed_seeds_every_global_generator(own: Settings) -> None:
    draws = []
    for _ in range(2):
        own.seed = np.int64(11)
        draws.append((random.random(), np.random.random(), torch.rand(()).item()))
    assert draws[0] == draws[1]
    assert own.seed == 11
    assert type(own.seed) is int
    random.seed(11)
    assert draws[0][0] == random.random()
    own.seed = None
    assert own.seed is None


def test_verbosity_is_the_level_of_the_packages_logger(own: Settings) -> None:
    own.verbosity = "warning"
    assert own.verbosity == logging.WARNING
    own.verbosity = logging.DEBUG
    assert logging.getLogger("cellvae").level == logging.DEBUG


def test_threads_are_those_of_torch(own: Settings) -> None:
    own.num_threads = 2
    assert torch.get_num_threads() == own.num_threads == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", -1, "seed to be at least 0 and at most 4294967295; got -1"),
        ("seed", 2**32, "at most 4294967295"),
        ("seed", 1.5, "seed to be a whole number or None; got 1.5"),
        ("seed", True, "seed to be a whole number or None; got True"),
        ("batch_size", 0, "batch_size to be at least 1; got 0"),
        ("batch_size", "128", "batch_size to be a whole number; got '128'"),
        ("progress_bar", "no", "progress_bar to be True or False; got 'no'"),
        ("num_threads", 0, "num_threads to be at least 1; got 0"),
        ("verbosity", "warnin", r"level of logging .* got 'warnin'. Did you mean 'WARNING'\?"),
        ("verbosity", None, "verbosity to be a whole number or a string; got None"),
    ],
)
def test_values_that_cannot_be_are_refused_and_nothing_changes(
    name: str, value: Any, message: str, own: Settings
) -> None:
    before = getattr(own, name)
    with pytest.raises(InvalidOptionError, match=message):
        setattr(own, name, value)
    assert getattr(own, name) == before


def test_unknown_settings_are_refused_with_the_closest(own: Settings) -> None:
    with pytest.raises(UnknownOptionError, match=r"no 'batchsize'. Did you mean 'batch_size'\?"):
        own.batchsize = 3


def test_settings_show_their_values(own: Settings) -> None:
    own.seed = 4
    assert "seed=4, batch_size=128, progress_bar=True" in repr(own)

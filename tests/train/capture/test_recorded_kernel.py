"""Steps whose likelihood is the kernel for CUDA devices, interpreted by Triton on the CPU.

They need Triton, and `TRITON_INTERPRET=1` in the environment.
"""

from __future__ import annotations

import os
from importlib import util
from typing import Any

import pytest
import torch
from recorder import Recorder

from cellvae.kernels.triton import first_use
from cellvae.settings import settings

from conftest import CASES  # isort: skip

pytestmark = [
    pytest.mark.trains,
    pytest.mark.skipif(
        util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
        reason="Triton is not installed, or TRITON_INTERPRET=1 was not set when Python started",
    ),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
OF_COUNTS = [
    case
    for case in CASES
    if case.name in ("SCVI", "SCANVI", "POISSONVI", "TOTALVI", "TOTALANVI", "MULTIVI")
]
EPOCHS = 3
"""Where an adversarial classifier stops to count, the step is recorded again in the second."""


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel was not used before."""
    monkeypatch.setattr(first_use, "compared", set())


def train(case: Any, **kwargs: Any) -> Any:
    """Model after a run of epochs of three full batches and one of the other cells."""
    model = case.made()
    model.train(
        max_epochs=EPOCHS,
        batch_size=26,
        seed=0,
        check_val_every_n_epoch=1,
        enable_progress_bar=False,
        accelerator="cpu",
        early_stopping=False,
        **kwargs,
    )
    return model


@pytest.mark.parametrize("case", OF_COUNTS, ids=lambda case: case.label)
def test_a_recorded_step_with_the_kernel_trains_bit_by_bit(
    case: Any, recorded: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(case, capture_steps=False)
    model = train(case, capture_steps=True)
    before = plain.module.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    (recorder,) = recorded
    for recording in recorder.recordings:
        names = [each.name for each in recording.kernels]
        assert names.count("count_log_prob") == 1
        # Proteins have a likelihood of torch.
        of_torch = {"lgamma", "digamma", "log1p_"} & set(names)
        assert not of_torch or case.name in ("TOTALVI", "TOTALANVI", "MULTIVI")
    assert recorder.n_replayed == 3 * (EPOCHS - recorder.n_recorded)
    assert first_use.compared and not first_use.failed

    monkeypatch.setitem(settings.values, "kernels", "torch")
    by_torch = train(case, capture_steps=False)
    for column in ("elbo_train", "elbo_validation"):
        expected = by_torch.history[column][column].to_numpy()
        assert model.history[column][column].to_numpy() == pytest.approx(expected, rel=1e-4)

"""Models of the contract tests, and runs that take the path of a CUDA device on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from recorder import Recorder

from cellvae.core.platform.device_kind import emulate_cuda
from cellvae.data.storage import placement as storage_placement
from cellvae.train.run import placement


def contract_cases() -> Any:
    """Module with the cases of the contract tests."""
    path = Path(__file__).parents[2] / "contract" / "conftest.py"
    spec = util.spec_from_file_location("contract_cases", path)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["contract_cases"] = module
    spec.loader.exec_module(module)
    return module


CASES = contract_cases().CASES


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CPU tensors take the path of CUDA tensors; their cells are where those of a device are."""
    monkeypatch.setattr(storage_placement, "free_device_memory", lambda *_: 2**40)
    with emulate_cuda():
        yield


@pytest.fixture
def recorded(emulated: None, monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Steps are recorded and replayed."""
    Recorder.made = []
    monkeypatch.setattr(placement, "CUDAGraphCapturer", Recorder)
    return Recorder.made

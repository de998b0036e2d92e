from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cellvae.persistence.record import Record


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut shows whether `fsync` did its work, and it takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def record() -> Record:
    return Record(
        model="SCVI",
        library_version="0.1.0",
        config={"n_latent": 10, "likelihood": "zinb", "hidden": [128, 128], "dropout": 0.1},
        registration={"genes": ["CD3E", "Müller ☃"], "batch": {"key": None, "float": "nan"}},
        history={"elbo_train": [401.25, 1 / 3, float("nan")], "lr": [float("inf")]},
        training={"seed": 0, "early": True},
        versions={"torch": "2.4.0", "float": "1"},
    )


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "encoder.weight": torch.randn(4, 3),
        "encoder.running_mean": torch.zeros(4),
        "encoder.num_batches_tracked": torch.tensor(17),
        "half": torch.randn(5).bfloat16(),
        "mask": torch.tensor([True, False, True]),
    }


@pytest.fixture
def raw_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a safetensors file with any header and values."""

    def write(header: Any, values: bytes = b"", length: int | None = None) -> Path:
        content = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / "raw.safetensors"
        start = (len(content) if length is None else length).to_bytes(8, "little")
        path.write_bytes(start + content + values)
        return path

    return write

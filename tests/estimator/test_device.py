"""Where a loaded network is put."""

from __future__ import annotations

import pytest
import torch

from cellvae.errors import InvalidOptionError
from cellvae.estimator.saving import pick_device


def test_auto_is_a_cuda_device_if_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device("auto", "auto").type == expected


@pytest.mark.parametrize("device", ["auto", 0, "0"])
def test_a_cpu_has_no_numbers(device: int | str) -> None:
    assert pick_device("cpu", device) == torch.device("cpu")


def test_the_meta_device_has_one() -> None:
    assert pick_device("meta", 0) == torch.device("meta", 0)


@pytest.mark.parametrize(("accelerator", "device"), [("gpu", 99), ("qpu", "auto"), ("gpu", "x")])
def test_devices_that_are_not_there_are_refused(accelerator: str, device: int | str) -> None:
    with pytest.raises(InvalidOptionError, match=f"accelerator='{accelerator}', device={device!r}"):
        pick_device(accelerator, device)

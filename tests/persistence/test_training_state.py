"""A training state is read as it was written, or refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from cellvae.errors import FileFormatError, UnsafeFileError
from cellvae.persistence import training_state
from cellvae.persistence.training_state import read_state, write_state

VALUES = {"module": {"weight": torch.arange(6.0).reshape(2, 3)}, "n_epochs": 3, "run_id": "a"}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "epoch=000003.state"
    write_state(path, VALUES)
    return path


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    try:
        read_state(path)
    except FileFormatError as error:
        assert type(error) is FileFormatError
        assert str(path) in str(error)
        assert "Resume from another state, or delete" in str(error)
        return str(error)
    raise AssertionError(f"{len(content)} bytes were read as a state")


def test_a_state_comes_back_and_torch_reads_it_too(state: Path) -> None:
    for values in (read_state(state), torch.load(state, weights_only=True)):
        assert values["n_epochs"] == 3
        assert torch.equal(values["module"]["weight"], VALUES["module"]["weight"])  # type: ignore[index]
    assert [path.name for path in state.parent.iterdir()] == [state.name]


def test_every_length_that_a_cut_can_leave_is_refused(state: Path) -> None:
    content = state.read_bytes()
    messages = [refused(state, content[:length]) for length in range(len(content))]
    assert len(messages) == len(content) > 1000
    assert all(str(state) in message for message in messages)


def test_every_byte_with_a_flipped_bit_is_refused(state: Path) -> None:
    content = bytearray(state.read_bytes())
    bits = np.random.default_rng(0).integers(0, 8, len(content))
    for place, bit in enumerate(bits.tolist()):
        content[place] ^= 1 << bit
        refused(state, bytes(content))
        content[place] ^= 1 << bit
    state.write_bytes(content)
    assert read_state(state)["run_id"] == "a"


def test_other_damage_is_refused(state: Path) -> None:
    content = state.read_bytes()
    random = np.random.default_rng(1)
    messages = []
    for _ in range(100):
        first, last = sorted(random.integers(0, len(content), 2).tolist())
        block = content[first : last + 1]
        for other in (b"\0" * len(block), block + block, b"", bytes(reversed(block))):
            if other != block:
                messages.append(refused(state, content[:first] + other + content[last + 1 :]))
    messages += [refused(state, content + more) for more in (b"\0", b"\n", content)]
    assert len(messages) > 200
    assert all(str(state) in message for message in messages)


def test_states_without_checksum_and_of_other_formats_are_refused(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"format": 1, **VALUES}, state)
    assert "no checksum, as those of cellvae before" in refused(state, state.read_bytes())
    monkeypatch.setattr(training_state, "STATE_FORMAT", 3)
    write_state(state, VALUES)
    monkeypatch.undo()
    with pytest.raises(FileFormatError, match="format 2 in .*epoch=000003.state; got 3.*version"):
        read_state(state)
    with pytest.raises(FileFormatError, match=r"Expected the file .*none\.state; got none"):
        read_state(state.with_name("none.state"))


class Planted:
    def __reduce__(self) -> object:
        return (Path.touch, (Path("ran"),))


def test_a_checksum_does_not_make_code_run(
    state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    write_state(state, {"module": Planted()})
    with pytest.raises(UnsafeFileError, match="holds more than values"):
        read_state(state)
    assert not (tmp_path / "ran").exists()


def test_bytes_that_are_no_archive_are_refused_even_with_a_checksum(state: Path) -> None:
    for body in (b"", b"PK", b"\x80\x02.", b"nothing" * 9):
        digest = hashlib.sha256(body).hexdigest().encode()
        state.write_bytes(body + training_state.COMMENT + digest)
        with pytest.raises(FileFormatError, match="Expected the state of a training run in"):
            read_state(state)

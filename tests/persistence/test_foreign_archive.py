"""A damaged file of scvi-tools is refused, or says what it said: zip files have checksums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cellvae.errors import FileFormatError
from cellvae.scvi.files.archive import TorchArchive


def content_of(path: Path) -> dict[str, bytes]:
    archive = TorchArchive(path)
    names = [name.removeprefix(archive.root) for name in archive.members]
    return {name: archive.read_member(name, 10**6) for name in names if not name.startswith(".")}


def test_every_flip_and_cut_of_an_archive_is_refused_or_changes_nothing_that_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weights": torch.arange(5.0), "text": "words"}, path)
    content, expected = path.read_bytes(), content_of(path)
    bits = np.random.default_rng(0).integers(0, 8, len(content)).tolist()
    damaged = [content[:length] for length in range(0, len(content), 7)]
    for place, bit in enumerate(bits):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        damaged.append(bytes(changed))
    for other in damaged:
        path.write_bytes(other)
        try:
            found = content_of(path)
        except FileFormatError as error:
            assert "model.pt" in str(error)
            continue
        # A member can get another name, and is then missed or left alone.
        assert all(found[name] == expected[name] for name in found.keys() & expected.keys())

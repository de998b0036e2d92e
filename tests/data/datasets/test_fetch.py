"""Downloads from a server on this machine: whole or not at all, and the same ever after."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

import cellvae
from cellvae.data.downloads.fetch import fetch
from cellvae.data.downloads.files import FILES, DatasetFile
from cellvae.data.downloads.folders import data_folder
from cellvae.errors import CellvaeError, DownloadError


def test_a_file_is_downloaded_once(server: Any, packed: bytes, tmp_path: Path) -> None:
    file = server.file("cells.gz", packed)
    path = fetch(file, tmp_path / "new")
    assert path == tmp_path / "new" / "cells.gz" and path.read_bytes() == packed
    assert fetch(file, tmp_path / "new") == path
    assert server.requests == ["/cells.gz"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["cells.gz", "cells.gz.sha256"]
    recorded = (tmp_path / "new" / "cells.gz.sha256").read_text()
    assert recorded == f"{hashlib.sha256(packed).hexdigest()}  cells.gz\n"


@pytest.mark.parametrize("answer", ["503", "429", "cut", "close", "other"])
def test_what_fails_once_is_tried_again(
    server: Any, packed: bytes, tmp_path: Path, answer: str
) -> None:
    path = fetch(server.file("cells.gz", packed, answer, answer), tmp_path)
    assert path.read_bytes() == packed
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "n_requests", "reason"),
    [("503", 3, "503"), ("cut", 3, "IncompleteRead|ConnectionError|Chunked"), ("404", 1, "404")]
    + [("other", 3, r"gives no \.gz file but b'<h"), ("403", 1, "403")],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(
    server: Any, packed: bytes, tmp_path: Path, answer: str, n_requests: int, reason: str
) -> None:
    file = server.file("cells.gz", packed, *[answer] * 9)
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(file, tmp_path)
    assert len(server.requests) == n_requests
    assert [*tmp_path.iterdir()] == []
    for part in (
        file.urls[0],
        f"put it at '{tmp_path / 'cells.gz'}'",
        "save_path",
        "CELLVAE_DATA_DIR",
    ):
        assert part in str(caught.value)
    assert isinstance(caught.value, CellvaeError | OSError)


def test_without_a_network_the_error_names_file_and_place(tmp_path: Path, server: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/cells.h5ad"
        with pytest.raises(DownloadError, match="ConnectionError") as caught:
            fetch(DatasetFile("cells.h5ad", (url,)), tmp_path)
    assert str(tmp_path / "cells.h5ad") in str(caught.value)


def test_the_next_address_is_tried_where_one_fails(
    server: Any, packed: bytes, tmp_path: Path
) -> None:
    server.file("cells.gz", packed)
    file = DatasetFile("cells.gz", (server.url("gone.gz"), server.url("cells.gz")))
    assert fetch(file, tmp_path).read_bytes() == packed
    assert server.requests == ["/gone.gz", "/cells.gz"]


def test_a_published_checksum_must_hold(server: Any, packed: bytes, tmp_path: Path) -> None:
    right = hashlib.sha256(packed).hexdigest()
    path = fetch(server.file("cells.gz", packed, sha256=right), tmp_path / "right")
    assert [*path.parent.iterdir()] == [path]
    with pytest.raises(DownloadError, match="does not match"):
        fetch(server.file("cells.gz", packed, sha256="0" * 64), tmp_path / "wrong")
    assert not any((tmp_path / "wrong").iterdir())
    path.write_bytes(packed[:-1])
    with pytest.raises(DownloadError, match=f"SHA-256 {right} as published; got .* Delete"):
        fetch(server.file("cells.gz", packed, sha256=right), tmp_path / "right")


def test_the_checksum_of_the_first_download_must_hold_later(
    server: Any, packed: bytes, tmp_path: Path
) -> None:
    file = server.file("cells.gz", packed)
    path = fetch(file, tmp_path)
    path.write_bytes(packed[:-1])
    with pytest.raises(DownloadError, match="of its first download, as in 'cells.gz.sha256'"):
        fetch(file, tmp_path)
    (tmp_path / "cells.gz.sha256").unlink()
    assert fetch(file, tmp_path).read_bytes() == packed[:-1]


def test_a_file_that_is_there_is_taken_as_it_is(server: Any, tmp_path: Path) -> None:
    (tmp_path / "cells.gz").write_bytes(b"my own")
    assert fetch(server.file("cells.gz", b"other"), tmp_path).read_bytes() == b"my own"
    assert server.requests == [] and [p.name for p in tmp_path.iterdir()] == ["cells.gz"]


def test_others_may_read_what_is_in_a_shared_folder(
    server: Any, packed: bytes, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    assert fetch(server.file("cells.gz", packed), tmp_path).stat().st_mode & 0o777 == 0o644


def test_the_progress_bar_follows_the_setting(
    server: Any, packed: bytes, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(server.file("cells.gz", packed), tmp_path / "a")
    assert "100%" in capsys.readouterr().err
    monkeypatch.setitem(cellvae.settings.values, "progress_bar", False)
    fetch(server.file("cells.gz", packed), tmp_path / "b")
    shown = capsys.readouterr().err
    assert "%" not in shown and "known_hash" not in shown


def test_folders_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CELLVAE_DATA_DIR", raising=False)
    cache = Path(pooch.os_cache("cellvae"))
    assert data_folder(None, "a.h5ad") == cache
    assert data_folder(None, "pbmc8k", "10X") == cache / "10X"
    (tmp_path / "data" / "10X" / "pbmc8k").mkdir(parents=True)
    (tmp_path / "data" / "a.h5ad").touch()
    assert data_folder(None, "a.h5ad") == Path("data")
    assert data_folder(None, "b.h5ad") == cache
    assert data_folder(None, "pbmc8k", "10X") == Path("data", "10X")
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "shared"))
    assert data_folder(None, "a.h5ad") == tmp_path / "shared"
    assert data_folder(None, "pbmc8k", "10X") == tmp_path / "shared" / "10X"
    assert data_folder("here", "pbmc8k", "10X") == Path("here")


def test_the_table_of_files_is_whole() -> None:
    for name, file in FILES.items():
        assert file.name == name and "/" not in name
        assert file.urls and all(url.startswith("https://") for url in file.urls)
        assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
    assert sum(file.sha256 is not None for file in FILES.values()) == 7

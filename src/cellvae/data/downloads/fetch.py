"""A file of a data set: taken from its folder, or downloaded into it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellvae.core.log import logger
from cellvae.data.downloads.files import DatasetFile
from cellvae.data.downloads.folders import VARIABLE
from cellvae.errors import DownloadError
from cellvae.settings import settings
from cellvae.version import __version__

RETRY_DELAYS = (1.0, 4.0)
"""Seconds before each further attempt at an address."""
TIMEOUT = 60
"""Seconds that a server may stay silent."""
USER_AGENT = f"Mozilla/5.0 (compatible; cellvae/{__version__})"
"""Name told to servers: some refuse those of libraries."""
CHUNK = 2**16
FILE_SIGNATURES = {
    ".h5ad": b"\x89HDF\r\n\x1a\n",
    ".h5": b"\x89HDF\r\n\x1a\n",
    ".gz": b"\x1f\x8b",
}
"""First bytes of a file, by how its name ends."""
TOO_MANY_REQUESTS = 429


def fetch(file: DatasetFile, folder: Path) -> Path:
    """Path of a file in a folder, downloaded first if it is not there.

    A download is complete and has the published checksum, or leaves nothing behind. Where no
    checksum is published, the one of the download is kept beside the file, `<file>.sha256`, and
    compared whenever the file is used again. A file that someone has put there is taken as it is,
    unless a checksum is published.

    Parameters
    ----------
    file
        The file.
    folder
        Folder that it is in, or will be.

    Raises
    ------
    DownloadError
        If it cannot be downloaded, or has not the checksum that it should have.
    """
    path = folder / file.name
    if path.exists():
        check_checksum(path, file.sha256)
        logger.debug("Reading %s, which is there already", path)
    else:
        download(file, path)
    return path


def download(file: DatasetFile, path: Path) -> None:
    """Download a file from the first of its addresses that gives it.

    Raises
    ------
    DownloadError
        If none of them does.
    """
    failures = []
    for url in file.urls:
        logger.info("Downloading %s to %s", url, path)
        failure = try_address(url, file.sha256, path)
        if failure is None:
            # Made readable by nobody else, and a cache may be shared.
            path.chmod(path.parent.stat().st_mode & 0o666)
            if file.sha256 is None:
                record_checksum(path)
            return
        failures.append(f"{url}: {failure}")
    tried = "; ".join(failures) or "no address is known"
    raise DownloadError(
        f"Expected to download '{path.name}'; got {tried}. Try again, or get the file on a "
        f"machine with a network and put it at '{path.absolute()}'. Another folder that has "
        f"'{file.name}' can be named by save_path=... or by the environment variable {VARIABLE}."
    )


def try_address(url: str, sha256: str | None, path: Path) -> str | None:
    """Download from one address, again if that may help; why it failed, or None."""
    import pooch
    import requests

    failure = None
    for wait in (*RETRY_DELAYS, None):
        try:
            with silence_pooch():
                pooch.retrieve(
                    url, sha256, path.name, path.parent, downloader=downloader(path.suffix)
                )
            return None
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            failure = str(error)
            if status < 500 and status != TOO_MANY_REQUESTS:
                return failure
        except requests.RequestException as error:
            failure = f"{type(error).__name__}: {error}"
        except ValueError as error:
            failure = str(error)
        if wait is not None:
            logger.info("Download failed (%s); trying again in %g seconds", failure, wait)
            time.sleep(wait)
    return failure


def downloader(suffix: str) -> Callable[[str, Any, Any], None]:
    """Function that writes what an address gives to a file, with a progress bar.

    It raises a ValueError for content that no file of this suffix starts with, such as the login
    page of a network.
    """
    import pooch

    http = pooch.HTTPDownloader(
        progressbar=settings.progress_bar,
        chunk_size=CHUNK,
        timeout=TIMEOUT,
        headers={"User-Agent": USER_AGENT},
    )

    def write(url: str, output_file: Any, instance: Any) -> None:
        http(url, output_file, instance)
        start = FILE_SIGNATURES.get(suffix, b"")
        with Path(output_file).open("rb") as content:
            found = content.read(max(len(start), 1))
        if not found or not found.startswith(start):
            raise ValueError(f"the address gives no {suffix} file but {found!r}...")

    return write


@contextmanager
def silence_pooch() -> Iterator[None]:
    """Leave out pooch's own messages, among them one that asks for a checksum in the code."""
    import pooch

    messages = pooch.get_logger()
    level = messages.level
    messages.setLevel(logging.ERROR)
    try:
        yield
    finally:
        messages.setLevel(level)


def checksum_path(path: Path) -> Path:
    """File beside another one that keeps its checksum."""
    return path.with_name(f"{path.name}.sha256")


def record_checksum(path: Path) -> None:
    """Keep the checksum of a file beside it, in the form of the command sha256sum."""
    import pooch

    checksum_path(path).write_text(f"{pooch.file_hash(str(path))}  {path.name}\n")


def check_checksum(path: Path, sha256: str | None) -> None:
    """Compare a file with its published checksum, or with the one of its first download.

    Raises
    ------
    DownloadError
        If they differ.
    """
    import pooch

    record = checksum_path(path)
    if sha256 is not None:
        expected, origin, remedy = sha256, "as published", f"Delete '{path}'"
    elif record.exists():
        expected = (record.read_text().split() or [""])[0]
        origin = f"of its first download, as in '{record.name}'"
        remedy = (
            f"If you have replaced the file on purpose, delete '{record}'; otherwise delete both"
        )
    else:
        return
    found = pooch.file_hash(str(path))
    if found != expected:
        raise DownloadError(
            f"Expected '{path}' to have the SHA-256 {expected} {origin}; got {found}. The file is "
            f"damaged, or another one. {remedy}, and it is downloaded again."
        )

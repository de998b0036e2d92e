"""Files of data sets: cached in a folder, or downloaded into it and verified."""

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
"""Delays before retries of an address, in seconds."""
TIMEOUT = 60
"""Timeout of a server, in seconds."""
USER_AGENT = f"Mozilla/5.0 (compatible; cellvae/{__version__})"
"""User agent for servers: some refuse those of libraries."""
CHUNK = 2**16
FILE_SIGNATURES = {
    ".h5ad": b"\x89HDF\r\n\x1a\n",
    ".h5": b"\x89HDF\r\n\x1a\n",
    ".gz": b"\x1f\x8b",
}
"""First bytes of a file, by its suffix."""
TOO_MANY_REQUESTS = 429


def fetch(file: DatasetFile, folder: Path) -> Path:
    """Path of a file in a folder, after a download if it does not exist.

    A download is complete and has the published checksum, or leaves nothing behind. Where no
    checksum is published, the one of the download is stored next to the file, `<file>.sha256`, and
    compared whenever the file is used again. A file that the user put there is not checked, unless
    a checksum is published.

    Parameters
    ----------
    file
        The file.
    folder
        Folder of the file.

    Raises
    ------
    DownloadError
        If it cannot be downloaded, or has another checksum than expected.
    """
    path = folder / file.name
    if path.exists():
        check_checksum(path, file.sha256)
        logger.debug("Reading %s, which exists already", path)
    else:
        download(file, path)
    return path


def download(file: DatasetFile, path: Path) -> None:
    """Download a file from the first of its addresses that works.

    Raises
    ------
    DownloadError
        If none works.
    """
    failures = []
    for url in file.urls:
        logger.info("Downloading %s to %s", url, path)
        failure = try_address(url, file.sha256, path)
        if failure is None:
            # pooch creates files that only their owner can read, but a cache may be shared.
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
    """Download from one address, with retries; returns the reason of a failure, or None."""
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
    """Function for pooch that downloads an address to a file, with a progress bar.

    It raises a ValueError for content that does not start like a file of this suffix, such as the
    login page of a network.
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
        signature = FILE_SIGNATURES.get(suffix, b"")
        with Path(output_file).open("rb") as content:
            found = content.read(max(len(signature), 1))
        if not found or not found.startswith(signature):
            raise ValueError(f"the address gives no {suffix} file but {found!r}...")

    return write


@contextmanager
def silence_pooch() -> Iterator[None]:
    """Suppress pooch's log messages, among them one that requests a checksum in the code."""
    import pooch

    pooch_logger = pooch.get_logger()
    level = pooch_logger.level
    pooch_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        pooch_logger.setLevel(level)


def checksum_path(path: Path) -> Path:
    """Path of the checksum file next to a file."""
    return path.with_name(f"{path.name}.sha256")


def record_checksum(path: Path) -> None:
    """Write the checksum of a file next to it, in the format of the command sha256sum."""
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

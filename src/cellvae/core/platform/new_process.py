"""Functions that run in a new process of Python, which inherits nothing but its arguments."""

from __future__ import annotations

import codecs
import io
import os
import pickle  # noqa: TID251 - a call and its result, in a private folder of this process
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType
from typing import Any

from cellvae.errors import InvalidOptionError, TrainingError

CALL, RESULT = "call.pickle", "result.pickle"
CHUNK = 1 << 12
"""Bytes of output that are shown at once, at most."""


class CallPickler(pickle.Pickler):
    """Pickler that refuses what a new process could not import."""

    def reducer_override(self, value: Any) -> Any:
        """Refuse functions and classes of the notebook.

        Raises
        ------
        InvalidOptionError
            If it is one.
        """
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            raise InvalidOptionError(
                f"Expected functions and classes that other processes can import; got "
                f"{value.__qualname__}, which is defined here. Write it to a file and import it."
            )
        return NotImplemented


def call_in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of a function that is called in a new process; its output is shown as it comes.

    Ctrl-C is passed on: the function decides what it does. A second one ends the process.

    Parameters
    ----------
    function
        A function of a module.
    *arguments
        Its arguments, which are pickled.

    Raises
    ------
    InvalidOptionError
        If an argument cannot be pickled.
    TrainingError
        If the process ends without a result.
    """
    with TemporaryDirectory(prefix="cellvae-") as folder:
        write_call(Path(folder) / CALL, function, arguments)
        path = os.pathsep.join(part for part in [str(Path.cwd()), *sys.path] if part)
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, folder],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output = threading.Thread(target=show_output, args=(process,), daemon=True)
        output.start()
        try:
            wait_for(process)
        finally:
            # Processes that it has started would otherwise outlive it, if something is wrong.
            with suppress(ProcessLookupError, AttributeError):
                os.killpg(process.pid, signal.SIGKILL)
            output.join(timeout=5)
        written = Path(folder) / RESULT
        if not written.exists():
            raise TrainingError(
                f"The process that was started ended with exit code {process.returncode} and "
                "without a result. Its output says why."
            )
        with written.open("rb") as file:
            return pickle.load(file)


def write_call(path: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Pickle a call to a file.

    Raises
    ------
    InvalidOptionError
        If an argument cannot be pickled.
    """
    with path.open("wb") as file:
        try:
            CallPickler(file, protocol=5).dump((function, arguments))
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise InvalidOptionError(
                f"Expected model, cells and options that can be sent to other processes: {error}. "
                "Several devices need a script here: save one and start it with python."
            ) from error


def can_pickle(value: Any) -> bool:
    """Whether a value can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True


def show_output(process: subprocess.Popen[bytes]) -> None:
    """Write the output of a process to that of this one, until it ends."""
    assert isinstance(process.stdout, io.BufferedReader)
    # A character may be divided between two chunks.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with process.stdout as output:
        while chunk := output.read1(CHUNK):
            sys.stdout.write(decoder.decode(chunk))
            sys.stdout.flush()


def wait_for(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has ended; Ctrl-C is passed on once.

    Raises
    ------
    KeyboardInterrupt
        At the second Ctrl-C; the process is ended by the caller.
    """
    try:
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()


def main() -> None:
    """Make the call in the folder that is given, and write its result.

    Where the function starts this program again as further processes, the first alone writes.
    """
    folder = Path(sys.argv[1])
    with (folder / CALL).open("rb") as file:
        function, arguments = pickle.load(file)
    result = function(*arguments)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        partial = folder / f"{RESULT}.partial"
        partial.write_bytes(pickle.dumps(result, protocol=5))
        partial.rename(folder / RESULT)


if __name__ == "__main__":
    main()

"""Runs scripts one by one, each in a fork of a process that has imported the packages they use.

Lines of standard input are JSON: a script, a file for its output, and its arguments. Each is
answered by a line with the exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import lightning.pytorch  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import scanpy  # noqa: F401

import cellvae.model  # noqa: F401 - imported once for all scripts


def run(script: str, output: Path, arguments: list[str]) -> int:
    """Run a script in a fork, and return its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        script, output, *arguments = json.loads(line)
        print(run(script, Path(output), arguments), flush=True)

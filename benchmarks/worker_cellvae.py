"""One training run with cellvae: python worker_cellvae.py task.json."""

from __future__ import annotations

import time

begin = time.perf_counter()
import cellvae  # noqa: E402

# Submodules are loaded when they are first used: count them in.
cellvae.model.SCVI  # noqa: B018
import_seconds = time.perf_counter() - begin

from one_run import answer_task  # noqa: E402

if __name__ == "__main__":
    answer_task(cellvae, import_seconds)

"""When a progress bar is shown, and the bar."""

from __future__ import annotations

import sys
from typing import Any

BAR_DELAY_SECONDS = 2.0
"""Shorter passes show no bar."""


def is_interactive() -> bool:
    """Whether the output is a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def cell_bar(n_cells: int, description: str, *, silent: bool) -> Any:
    """Bar on standard error that counts cells and disappears at the end of the pass."""
    from tqdm import tqdm

    return tqdm(
        total=n_cells,
        desc=description,
        unit=" cells",
        unit_scale=True,
        delay=BAR_DELAY_SECONDS,
        leave=False,
        dynamic_ncols=True,
        disable=silent or not is_interactive(),
    )

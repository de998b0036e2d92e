"""The logger of the package, and warnings at the line of the user's code."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cellvae.core.platform.launcher import process_rank

logger = logging.getLogger("cellvae")


class PlainHandler(logging.StreamHandler):
    """Handler that prints messages unless the program has set up logging itself.

    Of several processes that train one model, the first prints what is no warning.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        first = record.levelno >= logging.WARNING or process_rank() == 0
        if first and not logging.getLogger().handlers:
            super().emit(record)


def show_messages() -> None:
    """Show messages of level INFO and above on standard error."""
    if not any(isinstance(handler, PlainHandler) for handler in logger.handlers):
        handler = PlainHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


@contextmanager
def without_messages() -> Iterator[None]:
    """Log nothing within the block."""

    def refuse(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)


def warn(text: str, category: type[Warning]) -> None:
    """Warn at the line of the user's own code that called into the package."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "cellvae":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)

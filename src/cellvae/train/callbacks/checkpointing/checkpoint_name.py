"""Names of the folders of checkpoints: filled in with metrics, short, and never taken twice."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from cellvae.errors import InvalidOptionError

LAST = "last"
EXCEPTION = "exception"
RESERVED = (LAST, EXCEPTION, "", ".", "..")

# What has a meaning in a path, on one system or another.
UNSAFE_CHARACTERS = re.compile(r"[/\\:*?\"<>|\x00-\x1f]")


class CheckpointName:
    """Template for names of checkpoints.

    Parameters
    ----------
    template
        Name with `{epoch}`, `{step}`, `{monitor}` or any metric in braces, formatted as in Python;
        None for epoch and metric.
    monitor
        Metric in place of `{monitor}`; None if there is none.
    insert_names
        Whether `{epoch}` becomes `epoch=3`; otherwise `3`.

    Raises
    ------
    InvalidOptionError
        If the name is one that has a meaning of its own.
    """

    def __init__(self, template: str | None, monitor: str | None, *, insert_names: bool) -> None:
        if template is not None and template in RESERVED:
            raise InvalidOptionError(
                f"Expected filename to be a name other than '{LAST}' and '{EXCEPTION}', which have "
                f"a meaning of their own; got {template!r}. Give a name such as '{{epoch}}'."
            )
        self.template = template
        self.monitor = monitor
        self.insert_names = insert_names

    def fill(
        self, *, epoch: int, step: int, score: float | None, metrics: Mapping[str, float]
    ) -> str:
        """Name of one checkpoint.

        Raises
        ------
        InvalidOptionError
            If the template names a metric that nobody logged.
        """
        template = self.template
        if template is None:
            template = "{epoch}" if score is None else "{epoch}-{monitor}"
        known: dict[str, float] = {**metrics, "epoch": epoch, "step": step}

        def fill_in(match: re.Match[str]) -> str:
            name, form = match.group(1), match.group(2)
            if name == "monitor":
                name, value = self.monitor or name, math.nan if score is None else score
            elif name in known:
                value = known[name]
            else:
                raise InvalidOptionError(
                    f"Expected filename to name a metric in braces; got '{{{name}}}'. "
                    f"Known: {', '.join(known)}."
                )
            text = f"{value:{form or ('d' if name in ('epoch', 'step') else '.4f')}}"
            return f"{name}={text}" if self.insert_names else text

        return safe_name(re.sub(r"\{([^{}:]+)(?::([^{}]*))?\}", fill_in, template))


def safe_name(text: str) -> str:
    """Text as the name of one folder, without what has a meaning in a path."""
    return UNSAFE_CHARACTERS.sub("_", text)


def unused_name(folder: Path, name: str, own_names: Collection[str] = ()) -> str:
    """Name that nothing in a folder has, with a counter if need be; names of one's own are free."""
    candidates = [name, *(f"{name}-v{i}" for i in range(1, 10_000))]
    return next(n for n in candidates if n in own_names or not (folder / n).exists())


def make_unique_folder(parent: Path, what: str) -> Path:
    """Make a folder under a parent that nobody else has, named by the time."""
    stem = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_{safe_name(what)}"
    parent.mkdir(parents=True, exist_ok=True)
    for path in (parent / stem, *(parent / f"{stem}_{i}" for i in range(2, 10_000))):
        try:
            # Making it is what claims it: of two processes only one can.
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise FileExistsError(f"Expected a free name for a folder under {parent}; got none.")

"""What a page about a run tells, in plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with a value each; under a line to open where it is given."""

    values: tuple[tuple[str, str], ...]
    folded: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Table of texts: a header, and rows whose first cell is a name."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Figure as SVG, with what it shows in words."""

    svg: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Figures side by side where there is room."""

    charts: tuple[Chart, ...]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Note:
    """Sentence, such as the reason why something is not there."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Part of a page under a heading of its own."""

    title: str
    parts: tuple[Facts | Grid | Gallery | Note, ...]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Everything that a page tells.

    Parameters
    ----------
    title, subtitle
        What the page is about.
    sections
        Its parts in order.
    footer
        What it was made with.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    footer: str = ""

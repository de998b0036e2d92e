"""Contents of a page about a run, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and values; collapsed under a summary line if `folded` is given."""

    values: tuple[tuple[str, str], ...]
    folded: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Table of strings: a header, and rows whose first cell is a name."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Figure as SVG, with a description."""

    svg: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Figures, side by side if there is room."""

    charts: tuple[Chart, ...]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Note:
    """Sentence, such as the reason why something is missing."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Section of a page with a heading."""

    title: str
    parts: tuple[Facts | Grid | Gallery | Note, ...]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Contents of a page.

    Parameters
    ----------
    title, subtitle
        Title and subtitle.
    sections
        Sections in order.
    footer
        Footer, with the versions used.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    footer: str = ""

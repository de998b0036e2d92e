"""The page as text: complete, escaped, and one file."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cellvae.report import (
    Chart,
    Facts,
    Gallery,
    Grid,
    Note,
    RunSummary,
    Section,
    render_page,
    write_page,
)

SVG = (
    '<?xml version="1.0"?>\n<svg width="10"><defs><path id="a"/></defs>'
    '<g clip-path="url(#a)"><use xlink:href="#a"/></g></svg>'
)
NASTY = '<script>alert("x")</script>'


def summary(text: str = "T cells") -> RunSummary:
    chart = Chart(svg=SVG, title=text)
    return RunSummary(
        title=text,
        subtitle=text,
        sections=(
            Section(title="Training", parts=(Facts(values=((text, text),), folded=text),)),
            Section(
                title="Data & more",
                parts=(
                    Grid(header=("type", "cells"), rows=((text, "3"),)),
                    Gallery(charts=(chart, chart), caption=text),
                    Note(text=text),
                ),
            ),
        ),
        footer=text,
    )


class Tags(HTMLParser):
    """Tags that were opened and closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "path", "use"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use"):
            assert self.open.pop() == tag


def test_every_tag_is_closed_and_everything_is_shown() -> None:
    text = render_page(summary())
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.seen.count("svg") == 2
    assert tags.seen.count("section") == 2
    assert {"details", "table", "figure", "nav"} <= set(tags.seen)
    assert text.count("T cells") >= 10
    assert 'href="#data-more"' in text
    assert 'id="data-more"' in text


def test_names_from_the_data_cannot_become_code() -> None:
    text = render_page(summary(NASTY))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert 'aria-label="&lt;script' in text


def test_figures_do_not_share_names() -> None:
    text = render_page(summary())
    names = re.findall(r'<path id="([^"]+)"', text)
    assert len(set(names)) == len(names) == 2
    assert re.findall(r"url\(#([^)]+)\)", text) == names
    assert re.findall(r'xlink:href="#([^"]+)"', text) == names


def test_the_page_asks_for_nothing_else() -> None:
    text = render_page(summary())
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "default-src 'none'" in text
    assert "@import" not in text


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.html"
    write_page(summary("first"), path)

    def full(source: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_page(summary("second"), path)

    assert "first" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["run.html"]

"""Rendering of a page as one self-contained HTML file without scripts."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from cellvae.core.files.output_files import replace_atomically
from cellvae.report.css import CSS
from cellvae.report.page_model import Chart, Facts, Gallery, Grid, Note, RunSummary, Section


def render_page(summary: RunSummary) -> str:
    """Page as HTML; everything but figures is escaped."""
    links = "".join(f'<a href="#{anchor(s.title)}">{escape(s.title)}</a>' for s in summary.sections)
    sections = "\n".join(render_section(s, i) for i, s in enumerate(summary.sections))
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(summary.title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(summary.title)}</h1>\n"
        f'<p class="subtitle">{escape(summary.subtitle)}</p></header>\n'
        f"<nav>{links}</nav>\n{sections}\n<footer>{escape(summary.footer)}</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def render_section(section: Section, position: int) -> str:
    """HTML of a section."""
    parts = "\n".join(render_part(p, f"f{position}-{i}-") for i, p in enumerate(section.parts))
    title = escape(section.title)
    return f'<section id="{anchor(section.title)}">\n<h2>{title}</h2>\n{parts}\n</section>'


def render_part(part: Facts | Grid | Gallery | Note, prefix: str) -> str:
    """HTML of facts, a table, figures or a note."""
    if isinstance(part, Note):
        return f'<p class="note">{escape(part.text)}</p>'
    if isinstance(part, Facts):
        pairs = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in part.values)
        if part.folded:
            return f"<details><summary>{escape(part.folded)}</summary><dl>{pairs}</dl></details>"
        return f"<dl>{pairs}</dl>"
    if isinstance(part, Grid):
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in part.header)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in part.rows
        )
        return (
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    charts = "".join(render_chart(one, f"{prefix}{i}-") for i, one in enumerate(part.charts))
    caption = f"<figcaption>{escape(part.caption)}</figcaption>" if part.caption else ""
    return f'<figure><div class="gallery">{charts}</div>{caption}</figure>'


def render_chart(chart: Chart, prefix: str) -> str:
    """HTML of a figure with its description."""
    label = f'<svg role="img" aria-label="{escape(chart.title)}" '
    drawing = make_ids_unique(chart.svg, prefix).replace("<svg ", label, 1)
    return f'<div class="paper">{drawing}</div>'


def make_ids_unique(svg: str, prefix: str) -> str:
    """SVG with a prefix before all ids, so that they are unique within the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r'((?:xlink:)?href)="#', rf'\1="#{prefix}', body)
    return re.sub(r"url\(#", f"url(#{prefix}", body)


def anchor(title: str) -> str:
    """Id of a heading, for links."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def write_page(summary: RunSummary, path: Path) -> None:
    """Write the page atomically: an older one is replaced when the new one is complete."""
    with replace_atomically(path) as temporary:
        temporary.write_text(render_page(summary), encoding="utf-8")

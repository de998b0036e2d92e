"""HTML page about a run: its contents, figures and rendering."""

from cellvae.report.page import render_page, write_page
from cellvae.report.page_model import Chart, Facts, Gallery, Grid, Note, RunSummary, Section

__all__ = [
    "Chart",
    "Facts",
    "Gallery",
    "Grid",
    "Note",
    "RunSummary",
    "Section",
    "render_page",
    "write_page",
]


def __dir__() -> list[str]:
    return sorted(__all__)

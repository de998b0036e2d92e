"""What a finished job prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(model: Any, out: Path) -> None:
    """Print how training went and where the results are."""
    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in model.training_report.summary_rows():
        table.add_row(f"[bold]{name}[/bold]", value)
    table.add_row("[bold]files[/bold]", f"{out}/")
    for path in sorted(p for p in out.iterdir() if not p.name.startswith(".")):
        table.add_row("", f"  {path.name}{'/' if path.is_dir() else ''}")
    console.print()
    console.print(table, highlight=False, soft_wrap=True)

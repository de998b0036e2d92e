"""Run tutorials from top to bottom and keep their outputs: `execute.py [FILE ...]`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(path: Path, timeout: int = 600) -> nbformat.NotebookNode:
    """Notebook with the outputs of a fresh run; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": HERE}},
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                # What a terminal would show of a bar that was drawn again and again.
                output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text).lstrip("\n")
                # Warnings name the file that a cell was compiled from, another one in each run.
                output.text = re.sub(r"\S+ipykernel_\d+\S+\.py:(\d+): ", r"line \1: ", output.text)
    return notebook


def main() -> None:
    """Run the tutorials that are named, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        nbformat.write(execute(path), path)
        print(path.name)


if __name__ == "__main__":
    main()

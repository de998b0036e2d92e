"""Tables of what a model reads from an AnnData, printed as scvi-tools prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.data.setup.fields import FieldRecord

if TYPE_CHECKING:
    from cellvae.data import Registration


def print_setup_tables(name: str, registration: Registration, *, categories: bool) -> None:
    """Print tables of the arguments of the set-up, the fields and the categories of a model."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    features = ", ".join(f"{len(axis):,} {axis.name}" for axis in registration.axes.values())
    console.print(f"{name}: {registration.n_cells:,} cells x {features}", highlight=False)
    arguments = Table("setup_anndata", "value", title="What was given", title_justify="left")
    for argument, value in registration.keys.to_json().items():
        arguments.add_row(argument, str(value))
    if arguments.row_count:
        console.print(arguments)
    columns = Table(
        "column", "read from", "what was found", title="What is read", title_justify="left"
    )
    for column, record in registration.fields.items():
        columns.add_row(column, *record.describe())
    console.print(columns)
    if registration.modality_cells:
        cells = Table(
            "modalities with counts",
            "cells",
            title="Cells by what was measured in them",
            title_justify="left",
        )
        for modalities, n_cells in registration.modality_cells.items():
            cells.add_row(modalities, f"{n_cells:,}")
        console.print(cells)
    if not categories:
        return
    for column, record in registration.fields.items():
        for where, values in category_tables(column, record):
            table = Table("code", "category", title=where, title_justify="left")
            for code, value in enumerate(values):
                table.add_row(str(code), str(value))
            console.print(table)


def category_tables(column: str, record: FieldRecord) -> list[tuple[str, tuple[object, ...]]]:
    """Title and categories of each column of a field; empty if the field was not set up."""
    columns = [f"obs['{column.key}']" for column in record.obs_columns()]
    lists = record.category_lists(column)
    if list(lists) == [column]:
        columns = [f"{column}: {where}" for where in columns]
    return list(zip(columns, lists.values(), strict=False))

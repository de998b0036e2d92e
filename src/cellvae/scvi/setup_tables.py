"""Tables of what a model reads from an AnnData, printed as scvi-tools prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.data.setup.records import (
    CategoriesRecord,
    CategoryRecord,
    CountsRecord,
    FieldRecord,
    NumbersRecord,
)

if TYPE_CHECKING:
    from cellvae.data import Registration


def print_setup_tables(name: str, registration: Registration, *, categories: bool) -> None:
    """Print tables of the arguments of the set-up, the fields and the categories of a model."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{name}: {registration.n_cells:,} cells x {registration.n_genes:,} genes", highlight=False
    )
    arguments = Table("setup_anndata", "value", title="What was given", title_justify="left")
    for argument, value in registration.keys.to_json().items():
        arguments.add_row(argument, str(value))
    if arguments.row_count:
        console.print(arguments)
    columns = Table(
        "column", "read from", "what was found", title="What is read", title_justify="left"
    )
    for column, record in registration.fields.items():
        columns.add_row(column, *describe_record(record))
    console.print(columns)
    if not categories:
        return
    for column, record in registration.fields.items():
        for where, values in category_table(column, record):
            table = Table("code", "category", title=where, title_justify="left")
            for code, value in enumerate(values):
                table.add_row(str(code), str(value))
            console.print(table)


def describe_record(record: FieldRecord) -> tuple[str, str]:
    """Where a field is read from, and what was found there."""
    match record:
        case CountsRecord():
            numbers = "whole numbers" if record.integers else "numbers that are not all whole"
            return f"layers['{record.layer}']" if record.layer else "X", numbers
        case CategoryRecord():
            return obs_expression(
                record.key
            ), f"{len(record.categories):,} categories" if record.key else "one category"
        case CategoriesRecord():
            counts = ", ".join(f"{len(values):,} categories" for values in record.categories)
            return ", ".join(map(obs_expression, record.keys)) or "nothing", counts
        case NumbersRecord():
            return ", ".join(
                map(obs_expression, record.keys)
            ) or "nothing", "numbers" if record.keys else ""
    return "", ""


def obs_expression(key: str | None) -> str:
    """Expression for a column of `adata.obs`."""
    return f"obs['{key}']" if key else "nothing"


def category_table(column: str, record: FieldRecord) -> list[tuple[str, tuple[object, ...]]]:
    """Title and categories of each column of a field; empty if the field was not set up."""
    if isinstance(record, CategoryRecord) and record.key:
        return [(f"{column}: {obs_expression(record.key)}", record.categories)]
    if isinstance(record, CategoriesRecord):
        return [
            (obs_expression(key), values)
            for key, values in zip(record.keys, record.categories, strict=True)
        ]
    return []

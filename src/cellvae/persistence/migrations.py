"""Migrations of records of older formats, one function for each change of the format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from cellvae.errors import FileFormatError

RECORD_FORMAT = 2
"""Format that this version writes."""

Fields = dict[str, Any]
Migration = Callable[[Fields], Fields]


def name_feature_axes(fields: Fields) -> Fields:
    """Format 2: features by axis, in place of the names of the genes alone."""
    registration = dict(fields["registration"])
    genes = registration.pop("genes")
    registration["axes"] = [{"name": "genes", "features": genes}]
    return {**fields, "registration": registration}


MIGRATIONS: Mapping[int, Migration] = MappingProxyType({1: name_feature_axes})
"""For each older format n, the function from the fields of n to the fields of n + 1."""


def migrate(
    fields: Fields,
    where: str,
    *,
    migrations: Mapping[int, Migration] = MIGRATIONS,
    newest: int = RECORD_FORMAT,
) -> Fields:
    """Fields of a record in the newest format; the given fields are not changed.

    Parameters
    ----------
    fields
        JSON object of a record of any format.
    where
        Name of the file, for messages.
    migrations
        Functions by the format they start from.
    newest
        Format to arrive at.

    Raises
    ------
    FileFormatError
        If the format is unknown or newer, or a field that the change of format needs is wrong.
    """
    number = format_number(fields, where)
    if number > newest:
        raise too_new_error(fields, number, newest, where)
    fields = dict(fields)
    while number < newest:
        if number not in migrations:
            raise FileFormatError(
                f"Expected a format from {min(migrations, default=newest)} to {newest} in {where}; "
                f"got {number}, which no version of cellvae wrote. Use the file that was saved."
            )
        try:
            fields = dict(migrations[number](fields))
        except FileFormatError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"Expected the fields of format {number} in {where}; they could not be turned "
                f"into format {number + 1}: {type(error).__name__}: {error}. "
                "The file is damaged or was edited: use the file that was saved."
            ) from error
        number += 1
        fields["format"] = number
    return fields


def format_number(fields: Fields, where: str) -> int:
    """Format version of a record."""
    number = fields.get("format")
    if type(number) is not int:
        got = "no such key" if "format" not in fields else repr(number)[:40]
        raise FileFormatError(
            f"Expected a whole number for 'format' in {where}; got {got}. "
            "Is this the model.json of a saved model?"
        )
    return number


def too_new_error(fields: Fields, number: int, newest: int, where: str) -> FileFormatError:
    """Error for a record of a newer format."""
    version = fields.get("library_version")
    # The text comes from a file and ends in a command that people paste.
    known = isinstance(version, str) and re.fullmatch(r"[0-9][0-9A-Za-z.+!]{0,40}", version)
    writer = f"cellvae {version}" if known else "a later version of cellvae"
    install = f'"cellvae>={version}"' if known else "cellvae"
    return FileFormatError(
        f"Expected format {newest} or older in {where}; got format {number}, written by {writer}. "
        f"Upgrade with: pip install --upgrade {install}"
    )

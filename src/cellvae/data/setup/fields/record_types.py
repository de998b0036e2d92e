"""Table of all types of records, by which a file is read."""

from __future__ import annotations

from collections.abc import Mapping

from cellvae.core.files.json_object import JsonObject
from cellvae.data.setup.fields.category import CategoryRecord
from cellvae.data.setup.fields.counts import CountsRecord, RegionsRecord
from cellvae.data.setup.fields.covariates import CategoriesRecord, NumbersRecord
from cellvae.data.setup.fields.features import FeaturesRecord
from cellvae.data.setup.fields.field import FieldRecord
from cellvae.data.setup.fields.proteins import ProteinsRecord
from cellvae.errors import FileFormatError, did_you_mean, quote_names

RECORD_TYPES: tuple[type[FieldRecord], ...] = (
    CountsRecord,
    RegionsRecord,
    CategoryRecord,
    CategoriesRecord,
    NumbersRecord,
    FeaturesRecord,
    ProteinsRecord,
)
"""All types of records that a file can hold."""


def record_from_json(values: object, where: str) -> FieldRecord:
    """Record of a field from its JSON object.

    Raises
    ------
    FileFormatError
        If an entry is unknown, missing or of another type than it should be.
    """
    entries = JsonObject(values, where)
    kind = entries.string("kind")
    kinds: Mapping[str, type[FieldRecord]] = {record.kind: record for record in RECORD_TYPES}
    if kind not in kinds:
        raise FileFormatError(
            f"Expected {where}.kind to be one of {quote_names([*kinds])}; got '{kind}'."
            f"{did_you_mean(kind, kinds)}"
        )
    record = kinds[kind].from_json(entries)
    entries.refuse_unread()
    return record

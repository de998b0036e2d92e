"""Fields of a model: counts, categories, labels and continuous values, read from an AnnData."""

from cellvae.data.setup.fields.category import Category, CategoryRecord, Labels
from cellvae.data.setup.fields.counts import (
    Counts,
    CountsRecord,
    Regions,
    RegionsRecord,
    make_count_column,
)
from cellvae.data.setup.fields.covariates import (
    Categories,
    CategoriesRecord,
    Numbers,
    NumbersRecord,
)
from cellvae.data.setup.fields.features import Features, FeaturesRecord
from cellvae.data.setup.fields.field import Field, FieldRecord
from cellvae.data.setup.fields.model_fields import count_fields, label_fields, labels_field
from cellvae.data.setup.fields.proteins import Proteins, ProteinsRecord
from cellvae.data.setup.fields.record_types import RECORD_TYPES, record_from_json

__all__ = [
    "Categories",
    "CategoriesRecord",
    "Category",
    "CategoryRecord",
    "Counts",
    "CountsRecord",
    "Features",
    "FeaturesRecord",
    "Field",
    "FieldRecord",
    "Labels",
    "Numbers",
    "NumbersRecord",
    "Proteins",
    "ProteinsRecord",
    "RECORD_TYPES",
    "Regions",
    "RegionsRecord",
    "count_fields",
    "label_fields",
    "labels_field",
    "make_count_column",
    "record_from_json",
]

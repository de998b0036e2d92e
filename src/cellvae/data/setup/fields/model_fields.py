"""Fields of the models of counts, and of counts and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.data.setup.fields.category import Category, Labels
from cellvae.data.setup.fields.counts import Counts
from cellvae.data.setup.fields.covariates import Categories, Numbers
from cellvae.data.setup.fields.field import Field

if TYPE_CHECKING:
    from cellvae.data.setup.keys import CountKeys, LabelKeys


def count_fields(keys: CountKeys) -> tuple[Field, ...]:
    """Fields of a count model, one for each key of `CountKeys`, in a fixed order."""
    return (
        Counts("counts", keys.layer),
        Category("batch", keys.batch_key),
        Category("labels", keys.labels_key),
        Numbers("size_factor", (keys.size_factor_key,) if keys.size_factor_key else (), True),
        Categories("categorical", keys.categorical_covariate_keys),
        Numbers("continuous", keys.continuous_covariate_keys),
    )


def label_fields(keys: LabelKeys) -> tuple[Field, ...]:
    """Fields of a model of counts and labels, one for each key of `LabelKeys`, in a fixed order."""
    labels = labels_field(keys)
    return tuple(labels if field.name == labels.name else field for field in count_fields(keys))


def labels_field(keys: LabelKeys) -> Labels:
    """Field of the labels, where some cells are unlabelled."""
    return Labels("labels", keys.labels_key, keys.unlabeled_category)

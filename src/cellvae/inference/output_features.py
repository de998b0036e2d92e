"""Names of the features of each output of a model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from cellvae.errors import InvalidOptionError, quote_names

if TYPE_CHECKING:
    from cellvae.inference.protocols import DecoderModel

AXES: Mapping[str, str] = MappingProxyType(
    {"rna": "genes", "accessibility": "regions", "protein": "proteins"}
)
"""Axis of the features of each output."""


def features_of(model: DecoderModel, output: str) -> tuple[str, ...]:
    """Names of the features of an output of a model.

    Raises
    ------
    InvalidOptionError
        If the model does not have the modality.
    """
    if output not in model.module.outputs:
        have = quote_names([AXES[name] for name in model.module.outputs])
        raise InvalidOptionError(
            f"Expected a model that was set up with {AXES[output]}; this one has {have}."
        )
    features: tuple[str, ...] = model.registration.axes[AXES[output]].features
    return features


def region_names(model: DecoderModel) -> tuple[str, ...]:
    """Names of the regions of a model.

    Raises
    ------
    InvalidOptionError
        If the model has several axes, and none of regions.
    """
    axes = model.registration.axes
    if "regions" not in axes and "accessibility" not in model.module.outputs:
        raise InvalidOptionError(
            "Expected a model that was set up with regions of chromatin; this one has "
            f"{quote_names([*axes])}."
        )
    return axes.get("regions", model.registration.first_axis).features

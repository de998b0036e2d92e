"""Output of a model that is checked: its features, measured values and where they were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cellvae.contracts import GenerativeModule
from cellvae.data.setup.fields import Field, FieldRecord
from cellvae.data.storage.column import Column
from cellvae.data.storage.sparse import sparse_rows_for
from cellvae.errors import InvalidOptionError, did_you_mean, quote_names
from cellvae.inference.arguments import check_choice
from cellvae.inference.cell_pass import CellPass, inference_mode
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData


class ObservedValues(NamedTuple):
    """Measured values of a batch of cells."""

    values: Float[Tensor, "cells features"]
    mask: Bool[Tensor, "cells features"] | None = None
    """Which values were measured; None for all."""


class CheckedOutput(NamedTuple):
    """One output of a model, and another layer with its measured values."""

    name: str
    raw: Column | None = None
    """Values of a layer, features in the order of the model; None for those that it reads."""

    def observed_values(
        self, module: GenerativeModule[Any], batch: Any, cells: Tensor
    ) -> ObservedValues:
        """Measured values of a batch of cells, which were measured in all or some features.

        Where the model gives the probability of detection, they are 1 for a count above 0.
        """
        values: Tensor = module.observed_values(batch)[self.name]
        if self.raw is not None:
            values = self.raw.take(cells).to(values.device)
        if self.name == "accessibility" and getattr(module, "gives_probabilities", False):
            values = (values > 0).to(values.dtype)
        mask = module.measurement_masks(batch).get(self.name)
        if mask is None or mask.shape[-1] == 1:
            return ObservedValues(values)
        return ObservedValues(values, mask.expand(values.shape))


def find_output(model: DecoderModel, output: str | None, modality: str | None) -> str:
    """Name of an output of a model: given itself, or by the modality that it is read from.

    Raises
    ------
    InvalidOptionError
        If the model has no such output, or reads no such modality.
    """
    outputs = model.module.outputs
    if output is not None:
        check_choice("output", output, outputs)
    if modality is None:
        return outputs[0] if output is None else output
    by_modality = {record_of(model, name).modality: name for name in outputs}
    known = [name for name in by_modality if name is not None]
    if not known:
        raise InvalidOptionError(
            f"Expected modality=None for a model of an AnnData; got {modality!r}. Give "
            "adata=mdata[modality], and output= for a model of several."
        )
    if modality not in by_modality or output not in (None, by_modality[modality]):
        raise InvalidOptionError(
            f"Expected modality to be one that the model reads ({quote_names(known)}), and output "
            f"that of it; got {modality!r}.{did_you_mean(modality, known)}"
        )
    return by_modality[modality]


def field_of(model: DecoderModel, output: str) -> Field:
    """Field that the measured values of an output are read from."""
    name = dict(zip(model.module.outputs, model.module.observed_fields, strict=True))[output]
    return model.registration.fields[name].field(name)


def record_of(model: DecoderModel, output: str) -> FieldRecord:
    """Record of the field of an output."""
    record: FieldRecord = model.registration.fields[field_of(model, output).name]
    return record


def features_of_output(model: DecoderModel, output: str) -> tuple[str, ...]:
    """Names of the features of an output."""
    features: tuple[str, ...] = model.registration.axes[str(field_of(model, output).axis)].features
    return features


def values_of_layer(
    model: DecoderModel, adata: AnnData, output: str, layer: str | None
) -> Column | None:
    """Values of a layer, or for proteins in `obsm` of an entry of it; None without a layer."""
    if layer is None:
        return None
    field = field_of(model, output).replace_layer(layer)
    table = field.table(adata)
    order = model.registration.axes[str(field.axis)].order_in(field.features(table))
    column: Column | None = field.read(table, record_of(model, output), order)
    return column


def keep_measured(model: DecoderModel, cell_pass: CellPass, output: str) -> CellPass:
    """Pass over the cells in which an output was measured.

    Raises
    ------
    InvalidOptionError
        If there are none.
    """
    sparse = sparse_rows_for(model.module, cell_pass.rows)
    quick = cell_pass._replace(rows=cell_pass.rows if sparse is None else sparse, silent=True)
    is_measured = torch.ones(len(cell_pass.cells), dtype=torch.bool)
    with inference_mode(model):
        for positions, batch in quick.iter_batches():
            mask = model.module.measurement_masks(batch).get(output)
            if mask is None:
                return cell_pass
            is_measured[positions] = mask.any(dim=-1).cpu()
    if not is_measured.any():
        raise InvalidOptionError(
            f"Expected cells in which the output '{output}' was measured; got "
            f"{len(is_measured):,} without. Give other indices or another output."
        )
    return cell_pass._replace(cells=cell_pass.cells[is_measured])

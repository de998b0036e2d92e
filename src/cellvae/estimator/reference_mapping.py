"""Reference mapping (scArches): a trained model learns the batches of further cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import torch
from torch import nn

from cellvae.core.frozen_weights import FrozenWeights, WeightSlice
from cellvae.core.log import logger
from cellvae.data.setup.align_genes import align_genes
from cellvae.data.setup.keys import store_keys
from cellvae.data.setup.query_registration import extend_registration
from cellvae.data.setup.records import CategoriesRecord, CategoryRecord
from cellvae.errors import DataMismatchError, InvalidOptionError, quote_names
from cellvae.estimator.minified_cells import refuse_minified
from cellvae.estimator.saving import SavingMixin, pick_device
from cellvae.nn.fc_layers import FCLayers
from cellvae.nn.surgery import grow_categories

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.data import Registration
    from cellvae.data.setup.categories import Scalar

M = TypeVar("M", bound=SavingMixin)

SCANVI_LATENT_NETWORKS = ("encoder_z2_z1", "decoder_z1_z2")
"""Networks of scANVI that read labels, of which a query has no new ones."""


@dataclass(frozen=True, kw_only=True)
class FreezeOptions:
    """What of a reference stays as it is while a query is learned."""

    unfrozen: bool = False
    freeze_dropout: bool = False
    freeze_expression: bool = True
    freeze_decoder_first_layer: bool = True
    freeze_batchnorm_encoder: bool = True
    freeze_batchnorm_decoder: bool = False
    freeze_classifier: bool = True

    def frozen_weights(self, network: nn.Module, grown: Mapping[str, WeightSlice]) -> FrozenWeights:
        """What training leaves as it is.

        Parameters
        ----------
        network
            Network of the query.
        grown
            For parameters with further categories, which part is that of the reference.
        """
        if self.unfrozen:
            return FrozenWeights()
        free = tuple(f"{path}." for path in self.retrained_layers(network))
        names = [name for name, _ in network.named_parameters() if not name.startswith(free)]
        still = [
            path
            for path, layer in network.named_modules()
            if (isinstance(layer, nn.BatchNorm1d) and not f"{path}.".startswith(free))
            or (isinstance(layer, nn.Dropout) and self.freeze_dropout)
        ]
        return FrozenWeights(
            parameters=tuple(name for name in names if name not in grown),
            slices={name: grown[name] for name in names if name in grown},
            eval_modules=tuple(still),
        )

    def retrained_layers(self, network: nn.Module) -> Iterator[str]:
        """Paths of the layers of which everything is learned from the query."""
        if hasattr(network, "l_encoder"):
            yield "l_encoder"
        if hasattr(network, "classifier") and not self.freeze_classifier:
            yield "classifier"
        for path, layer in network.named_modules():
            encodes, decodes = "encoder" in path, "decoder" in path
            if isinstance(layer, nn.BatchNorm1d) and (
                (encodes and not self.freeze_batchnorm_encoder)
                or (decodes and not self.freeze_batchnorm_decoder)
            ):
                yield path
            if isinstance(layer, FCLayers) and path.partition(".")[0] not in SCANVI_LATENT_NETWORKS:
                first = f"{path}.fc_layers.Layer 0.0"
                if encodes and not self.freeze_expression:
                    yield first
                if "px_decoder" in path and not self.freeze_decoder_first_layer:
                    yield first


def load_query_data(
    cls: type[Any],
    adata: AnnData | None = None,
    reference_model: str | Path | SavingMixin | None = None,
    registry: None = None,
    inplace_subset_query_vars: bool = False,
    accelerator: str = "auto",
    device: int | str = "auto",
    unfrozen: bool = False,
    freeze_dropout: bool = False,
    freeze_expression: bool = True,
    freeze_decoder_first_layer: bool = True,
    freeze_batchnorm_encoder: bool = True,
    freeze_batchnorm_decoder: bool = False,
    freeze_classifier: bool = True,
    transfer_batch: bool = True,
    datamodule: None = None,
) -> Any:
    """Model for further cells (a query) that begins as a trained one (scArches).

    Batches and covariates that the reference does not know are added to it, each beginning as the
    average of the known ones; labels may be missing. Training learns them and leaves the weights of
    the reference as they are, to the last bit, whatever the optimizer; what is kept is saved with
    the model. The reference itself is not changed.

    Parameters
    ----------
    adata
        Cells of the query, with the genes of the reference (see :meth:`prepare_query_anndata`) and
        its columns in `obs`; `setup_anndata` need not be called.
    reference_model
        Trained model of the same class, or the folder of one, of this package or of scvi-tools.
    inplace_subset_query_vars
        Whether genes that the reference does not have are dropped from `adata`. They do no harm.
    accelerator, device
        Where the network is put; `"auto"` is a CUDA device if there is one.
    unfrozen
        Whether everything is learned; the other options then count for nothing.
    freeze_dropout
        Whether no features are dropped in training.
    freeze_expression
        Whether the first layer of encoders keeps the weights of genes.
    freeze_decoder_first_layer
        Whether the first layer of the decoder keeps the weights of the latent.
    freeze_batchnorm_encoder, freeze_batchnorm_decoder
        Whether batch normalisation keeps weights and statistics, and works in training as it does
        afterwards.
    freeze_classifier
        Whether the classifier of labels is kept.
    transfer_batch
        Whether new batches are allowed.
    registry, datamodule
        Not supported: give the cells as an AnnData.

    Returns
    -------
    Model of this class, which :meth:`train` has to see unless there is nothing new to learn.

    Raises
    ------
    DataMismatchError
        If genes are missing, labels are not those that the reference tells, or there are new
        batches and `transfer_batch` is False.
    UnknownKeyError
        If a column or layer of the reference is not there.
    NotTrainedError
        If the reference has not been trained.
    FileFormatError
        If the folder holds no model of this class.

    References
    ----------
    Lotfollahi et al. (2022): Mapping single-cell data to reference atlases by transfer learning.
    Nature Biotechnology 40, 121.
    """
    if registry is not None or datamodule is not None or adata is None:
        raise InvalidOptionError(
            "Expected the cells of the query as an AnnData: load_query_data(adata, reference)."
        )
    if reference_model is None:
        raise InvalidOptionError("Expected reference_model: a trained model, or its folder.")
    refuse_minified(adata, "map cells onto a reference")
    reference = load_reference_model(cls, reference_model)
    reference.check_trained()
    known, columns = reference.registration, cls.fields(reference.registration.keys)
    if inplace_subset_query_vars:
        known.gene_order(adata)
        adata._inplace_subset_var([*known.genes])
    registration = extend_registration(known, adata, columns)
    new = new_categories(known, registration)
    if "batch" in new and not transfer_batch:
        raise DataMismatchError(
            "Expected batches that the reference knows "
            f"({quote_names([*known.categories('batch')])}), "
            f"since transfer_batch=False; got {quote_names([*new['batch']])}."
        )
    with torch.device("meta"):
        module = cls.build(registration, reference.config)
    weights, grown = grow_categories(module, reference.module)
    module.load_state_dict(weights, assign=True)
    model: SavingMixin = object.__new__(cls)
    model.assemble(registration, reference.config, module)
    model.attach(adata, new=True)
    model.init_from_data(module, model.rows_of_model())
    restore_buffers(module, reference.module, grown)
    freezing = FreezeOptions(
        unfrozen=unfrozen,
        freeze_dropout=freeze_dropout,
        freeze_expression=freeze_expression,
        freeze_decoder_first_layer=freeze_decoder_first_layer,
        freeze_batchnorm_encoder=freeze_batchnorm_encoder,
        freeze_batchnorm_decoder=freeze_batchnorm_decoder,
        freeze_classifier=freeze_classifier,
    )
    module.freeze(freezing.frozen_weights(module, grown))
    # With nothing to learn, the reference's answers for these cells are the model's.
    model.is_trained = not any(p.requires_grad for p in module.parameters())
    model.to_device(pick_device(accelerator, device))
    store_keys(adata, cls.__name__, known.keys)
    log_new_categories(new)
    return model


def prepare_query_anndata(
    cls: type[SavingMixin],
    adata: AnnData,
    reference_model: str | Path | SavingMixin,
    return_reference_var_names: bool = False,
    inplace: bool = True,
    *,
    min_fraction: float = 0.8,
) -> AnnData | pd.Index | None:
    """Bring an AnnData to the genes of a reference, in its order; missing ones are zeros.

    Parameters
    ----------
    adata
        Cells of the query.
    reference_model
        Trained model of the same class, or the folder of one.
    return_reference_var_names
        Whether only the genes of the reference are wanted; `adata` is then left alone.
    inplace
        Whether `adata` itself is changed; otherwise a new AnnData is made.
    min_fraction
        Least share of the genes of the reference that the query has to have.

    Returns
    -------
    The new AnnData; None if `inplace`. Where genes were missing, a warning says how many, and
    `adata.var["padded"]` which.

    Raises
    ------
    DataMismatchError
        If too few of the genes are there.
    InvalidDataError
        If a gene is there twice, or the cells are in a file.
    """
    genes = load_reference_model(cls, reference_model).registration.genes
    if return_reference_var_names:
        return pd.Index(genes)
    return align_genes(adata, genes, inplace=inplace, min_fraction=min_fraction)


def load_reference_model(cls: type[M], reference_model: str | Path | SavingMixin) -> M:
    """Model of a class: the one given, or that of a folder, without its cells.

    Raises
    ------
    InvalidOptionError
        If it is neither, or of another class.
    """
    if isinstance(reference_model, str | Path):
        return cls.load_reference(reference_model)
    if not isinstance(reference_model, cls):
        raise InvalidOptionError(
            f"Expected reference_model to be a trained {cls.__name__} or its folder; got "
            f"{type(reference_model).__name__}."
        )
    return reference_model


def new_categories(
    known: Registration[Any], wanted: Registration[Any]
) -> dict[str, tuple[Scalar, ...]]:
    """Categories that a reference does not know, by field or column."""
    new: dict[str, tuple[Scalar, ...]] = {}
    for name, record in wanted.fields.items():
        before = known.fields[name]
        if isinstance(record, CategoryRecord) and isinstance(before, CategoryRecord):
            new[name] = record.categories[len(before.categories) :]
        elif isinstance(record, CategoriesRecord) and isinstance(before, CategoriesRecord):
            for key, values, others in zip(
                record.keys, record.categories, before.categories, strict=True
            ):
                new[key] = values[len(others) :]
    return {name: values for name, values in new.items() if values}


def restore_buffers(
    network: nn.Module, reference: nn.Module, grown: Mapping[str, WeightSlice]
) -> None:
    """Give constants that were taken from the query those of the reference, where it has them."""
    constants = dict(network.named_buffers())
    for name, own in reference.named_buffers():
        part = grown.get(name)
        for view in [constants[name]] if part is None else part.select(constants[name]):
            view.copy_(own)


def log_new_categories(new: Mapping[str, Sequence[Scalar]]) -> None:
    """Say what the reference learns."""
    if new:
        added = "; ".join(f"{name}: {quote_names([*values])}" for name, values in new.items())
        logger.info("Added to the reference: %s.", added)
    else:
        logger.info("The cells have no category that the reference does not know.")

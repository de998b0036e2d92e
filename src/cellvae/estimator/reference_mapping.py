"""Reference mapping (scArches): a trained model is adapted to the batches of further cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from cellvae.core.frozen_weights import WeightSlice
from cellvae.core.log import logger
from cellvae.data.anndata_adapter import subset_genes_inplace
from cellvae.data.setup.align_genes import align_genes, align_modalities
from cellvae.data.setup.keys import store_keys
from cellvae.data.setup.query_registration import extend_registration
from cellvae.errors import DataMismatchError, InvalidOptionError, quote_names
from cellvae.estimator.minified_cells import refuse_minified
from cellvae.estimator.saving import SavingMixin, pick_device
from cellvae.nn.freeze_options import FreezeOptions
from cellvae.nn.surgery import grow_categories

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.data import Registration
    from cellvae.data.setup.categories import Scalar

S = TypeVar("S", bound=SavingMixin)


class ReferenceMappingMixin(SavingMixin):
    """A model that can be trained further on the cells of a query."""

    @classmethod
    def load_query_data(
        cls,
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
    ) -> Self:
        """Model for further cells (a query), initialized with a trained reference (scArches).

        Batches and covariates that the reference does not know are added to it, each initialized
        with the mean of the known ones; labels may be missing. Training learns them, and leaves
        the weights of the reference unchanged to the last bit, with any optimizer. Which weights
        are frozen is saved with the model. The reference itself is not changed.

        Parameters
        ----------
        adata
            Cells of the query, with the genes of the reference (see :meth:`prepare_query_anndata`)
            and its columns in `obs`; `setup_anndata` need not be called.
        reference_model
            Trained model of the same class, or the folder of one, of this package or of
            scvi-tools.
        inplace_subset_query_vars
            Whether genes that the reference does not have are dropped from `adata`. They do no
            harm.
        accelerator, device
            Device of the network; `"auto"` is a CUDA device if there is one.
        unfrozen
            Whether all weights are trained; the other options then have no effect.
        freeze_dropout
            Whether dropout is off in training.
        freeze_expression
            Whether the weights of genes in the first layer of encoders are frozen.
        freeze_decoder_first_layer
            Whether the weights of the latent in the first layer of the decoder are frozen.
        freeze_batchnorm_encoder, freeze_batchnorm_decoder
            Whether weights and statistics of batch normalisation are frozen, and it is in eval mode
            in training.
        freeze_classifier
            Whether the classifier of labels is frozen.
        transfer_batch
            Whether new batches are allowed.
        registry, datamodule
            Not supported: give the cells as an AnnData.

        Returns
        -------
        Model of this class. It has to be trained, unless there is nothing new to learn.

        Raises
        ------
        DataMismatchError
            If genes are missing, labels are not among those that the reference predicts, or there
            are new batches and `transfer_batch` is False.
        UnknownKeyError
            If a column or layer of the reference does not exist.
        NotTrainedError
            If the reference has not been trained.
        FileFormatError
            If the folder holds no model of this class.

        References
        ----------
        Lotfollahi et al. (2022): Mapping single-cell data to reference atlases by transfer
        learning. Nature Biotechnology 40, 121.
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
        reference.check_reference()
        if inplace_subset_query_vars:
            reference.registration.gene_order(adata)
            subset_genes_inplace(adata, [*reference.registration.genes])
        registration = query_registration(reference, adata, transfer_batch=transfer_batch)
        options = FreezeOptions(
            unfrozen=unfrozen,
            freeze_dropout=freeze_dropout,
            freeze_expression=freeze_expression,
            freeze_decoder_first_layer=freeze_decoder_first_layer,
            freeze_batchnorm_encoder=freeze_batchnorm_encoder,
            freeze_batchnorm_decoder=freeze_batchnorm_decoder,
            freeze_classifier=freeze_classifier,
        )
        model = extend_reference(cls, reference, registration, adata, options)
        model.to_device(pick_device(accelerator, device))
        store_keys(adata, cls.__name__, registration.keys)
        log_new_categories(new_categories(reference.registration, registration))
        return model

    def check_reference(self) -> None:
        """Refuse a model that no query can be mapped onto; most models can be a reference.

        Raises
        ------
        InvalidOptionError
            If what the model learned holds for its own cells alone.
        """

    @classmethod
    def prepare_query_anndata(
        cls,
        adata: AnnData,
        reference_model: str | Path | SavingMixin,
        return_reference_var_names: bool = False,
        inplace: bool = True,
        *,
        min_fraction: float = 0.8,
    ) -> AnnData | pd.Index | None:
        """Select the genes of a reference, in its order; missing genes are filled with zeros.

        Parameters
        ----------
        adata
            Cells of the query.
        reference_model
            Trained model of the same class, or the folder of one.
        return_reference_var_names
            Whether only the genes of the reference are returned; `adata` is then not changed.
        inplace
            Whether `adata` itself is changed; otherwise a new AnnData is returned.
        min_fraction
            Minimum fraction of the genes of the reference that the query must have.

        Returns
        -------
        The new AnnData; None if `inplace`. If genes were missing, a warning says how many, and
        `adata.var["padded"]` which.

        Raises
        ------
        DataMismatchError
            If too many genes are missing.
        InvalidDataError
            If a gene is there twice, or the AnnData is in backed mode.
        """
        genes = load_reference_model(cls, reference_model).registration.genes
        if return_reference_var_names:
            return pd.Index(genes)
        return align_genes(adata, genes, inplace=inplace, min_fraction=min_fraction)


def prepare_query_mudata(
    cls: type[S],
    mdata: Any,
    reference_model: str | Path | SavingMixin,
    return_reference_var_names: bool = False,
    inplace: bool = True,
    *,
    min_fraction: float = 0.8,
) -> Any:
    """Select the features of a reference in each modality; missing ones are filled with zeros.

    A model class with `setup_mudata` binds it as a class method.

    Parameters
    ----------
    mdata
        Cells of the query, a MuData.
    reference_model
        Trained model of the same class, or the folder of one.
    return_reference_var_names
        Whether only the features of the reference are returned, by modality; `mdata` is then not
        changed.
    inplace
        Whether `mdata` itself is changed; otherwise a new MuData is returned.
    min_fraction
        Minimum fraction of the features of each modality that the query must have; proteins may
        all be missing, and are then taken as not measured.

    Returns
    -------
    The new MuData; None if `inplace`.

    Raises
    ------
    DataMismatchError
        If too many features are missing.
    InvalidDataError
        If a feature is there twice, or the MuData is in backed mode.
    """
    reference = load_reference_model(cls, reference_model)
    registration = reference.registration
    fields = reference.fields(registration.keys)
    if return_reference_var_names:
        return {
            field.modality: pd.Index(registration.axes[field.axis].features)
            for field in fields
            if field.axis is not None and field.modality is not None
        }
    return align_modalities(mdata, registration, fields, inplace=inplace, min_fraction=min_fraction)


def load_reference_model(cls: type[S], reference_model: str | Path | SavingMixin) -> S:
    """Model of a class: the one given, or one from a folder, without its cells.

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


def query_registration(
    reference: SavingMixin, adata: AnnData, *, transfer_batch: bool
) -> Registration[Any]:
    """Registration of a reference, extended by the categories of a query.

    Raises
    ------
    DataMismatchError
        If there are new batches and `transfer_batch` is False.
    """
    known = reference.registration
    registration = extend_registration(known, adata, reference.fields(known.keys))
    new = new_categories(known, registration)
    if "batch" in new and not transfer_batch:
        raise DataMismatchError(
            "Expected batches that the reference knows "
            f"({quote_names([*known.categories('batch')])}), "
            f"since transfer_batch=False; got {quote_names([*new['batch']])}."
        )
    return registration


def extend_reference(
    cls: type[S],
    reference: S,
    registration: Registration[Any],
    adata: AnnData,
    options: FreezeOptions,
) -> S:
    """Model with the weights of a reference for more categories, some of them frozen."""
    with torch.device("meta"):
        module = cls.build(registration, reference.config)
    weights, grown = grow_categories(module, reference.module)
    module.load_state_dict(weights, assign=True)
    model = cls.__new__(cls)
    model.assemble(registration, reference.config, module)
    model.attach(adata, new=True)
    of_reference = {name: value.clone() for name, value in module.state_dict().items()}
    model.init_from_data(module, model.rows_of_model())
    restore_reference_values(module, of_reference, grown)
    module.freeze(options.frozen_weights(module, grown))
    # With nothing to train, the model gives the same results as the reference.
    model.is_trained = not any(p.requires_grad for p in module.parameters())
    return model


def new_categories(
    known: Registration[Any], wanted: Registration[Any]
) -> dict[str, tuple[Scalar, ...]]:
    """Categories that a reference does not know, by name of field or column."""
    new: dict[str, tuple[Scalar, ...]] = {}
    for name, record in wanted.fields.items():
        before = known.fields[name].category_lists(name)
        for key, values in record.category_lists(name).items():
            new[key] = values[len(before[key]) :]
    return {name: values for name, values in new.items() if values}


@torch.no_grad()
def restore_reference_values(
    network: nn.Module, of_reference: Mapping[str, Tensor], grown: Mapping[str, WeightSlice]
) -> None:
    """Replace values computed from the query by those of the reference, where it has them.

    Parameters
    ----------
    network
        Network of the query.
    of_reference
        Its values before any was computed from the query.
    grown
        For each value with further categories, the part that is that of the reference.
    """
    values = network.state_dict()
    for name, known in of_reference.items():
        part = grown.get(name)
        if part is None:
            values[name].copy_(known)
            continue
        for view, known_part in zip(part.select(values[name]), part.select(known), strict=True):
            view.copy_(known_part)


def log_new_categories(new: Mapping[str, Sequence[Scalar]]) -> None:
    """Log which categories were added to the reference."""
    if new:
        added = "; ".join(f"{name}: {quote_names([*values])}" for name, values in new.items())
        logger.info("Added to the reference: %s.", added)
    else:
        logger.info("The cells have no category that the reference does not know.")

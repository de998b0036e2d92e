"""Solo: a classifier of cells and simulated doublets, on the latent of scVI (Bernstein 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, final

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cellvae.contracts import Loss, Module
from cellvae.core.options import Options, option
from cellvae.data import Registration
from cellvae.data.batches.indexing import cell_indices
from cellvae.data.doublets import (
    DOUBLET,
    DOUBLET_NAMES,
    SINGLET,
    DoubletRows,
    draw_parents,
    join_features,
    make_doublets,
)
from cellvae.data.setup.fields import Category, Features, Field
from cellvae.data.setup.keys import CountKeys, Keys, stored_keys
from cellvae.errors import (
    DataMismatchError,
    InvalidDataError,
    InvalidOptionError,
    NotSetUpError,
    did_you_mean,
    quote_names,
)
from cellvae.estimator.model import Model
from cellvae.inference import call_doublets, get_doublet_rate, predict_doublets
from cellvae.inference.doublets.doublet_features import encode_features
from cellvae.inference.doublets.expression_components import ExpressionComponents
from cellvae.model.components.default_early_stopping import has_validation_cells
from cellvae.model.count_model import CountModel
from cellvae.model.linear_scvi import LinearSCVI
from cellvae.model.scanvi import SCANVI
from cellvae.model.scvi import SCVI
from cellvae.nn import Classifier
from cellvae.nn.classification_metrics import (
    METRICS,
    ClassificationSums,
    classification_metrics,
    classification_sums,
)
from cellvae.scvi.adata_manager import AnnDataManager
from cellvae.settings import DEFAULT_BATCH_SIZE

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.data.setup.minified import MinifiedType
    from cellvae.inference.protocols import CellChoice

OF_COUNTS = "ask the model of counts whose latent it reads"
MAX_EPOCHS, EARLY_STOPPING_PATIENCE = 400, 30
LEARNING_RATE, EMA_DECAY = 0.003, 0.99
WARMUP_STEPS = 500
"""Steps until the running statistics of batch normalization (momentum 0.01) fit the weights."""


class SOLOBatch(NamedTuple):
    """Features and classes of a batch of cells and simulated doublets."""

    features: Float[Tensor, "cells features"]
    labels: Int[Tensor, "cells 1"]


@dataclass(frozen=True, kw_only=True)
class SOLOKeys(Keys):
    """Keyword arguments of :meth:`SOLO.setup_anndata`.

    Parameters
    ----------
    labels_key
        Column of `adata.obs` with `"singlet"` for cells and `"doublet"` for simulated doublets.
    layer
        Layer that holds the features; None for `X`.
    """

    labels_key: str | None = None
    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class SOLOConfig(Options):
    """Options of :class:`SOLO`.

    Parameters
    ----------
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers; 0 for a linear classifier.
    dropout_rate
        Probability that a hidden unit is dropped.
    use_batch_norm, use_layer_norm
        Whether hidden layers have batch and layer normalization.
    """

    n_hidden: int = option(128, at_least=1, at_most=65_536)
    n_layers: int = option(1, at_least=0, at_most=128)
    dropout_rate: float = option(0.1, at_least=0, at_most=0.999)
    use_batch_norm: bool = True
    use_layer_norm: bool = False


class SOLOModule(Module[SOLOBatch]):
    """Network of Solo: two logits from the features of a cell.

    Names of parameters are those of scvi-tools' Classifier.
    """

    extra_metric_names = METRICS
    sparse_fields = ()

    def __init__(self, n_features: int, config: SOLOConfig) -> None:
        super().__init__()
        self.config = config
        network = Classifier(
            n_features,
            2,
            n_layers=config.n_layers,
            n_hidden=config.n_hidden,
            dropout_rate=config.dropout_rate,
            use_batch_norm=config.use_batch_norm,
            use_layer_norm=config.use_layer_norm,
        )
        self.classifier = network.classifier

    def logits(self, features: Float[Tensor, "cells features"]) -> Float[Tensor, "cells 2"]:
        """Logits of doublet and singlet."""
        logits: Tensor = self.classifier(features)
        return logits

    def loss(self, batch: SOLOBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Cross-entropy of the classes; there is no KL divergence."""
        labels = batch.labels.squeeze(-1)
        logits = self.logits(batch.features)
        cross_entropy = functional.cross_entropy(logits, labels, reduction="none")
        return Loss(
            loss=cross_entropy.mean(),
            reconstruction={"reconstruction_loss": cross_entropy},
            kl_local={"kl_local": cross_entropy.new_zeros(len(labels))},
            kl_global=cross_entropy.new_zeros(()),
            extra_metrics=tuple(classification_sums(logits, labels)),
        )

    def metrics_from_sums(self, sums: tuple[Tensor, ...]) -> dict[str, Float[Tensor, ""]]:
        """Classification metrics of an epoch."""
        return classification_metrics(ClassificationSums(*sums))


@final
class SOLO(Model):
    """Classifier that tells doublets from single cells (Solo).

    It is trained to tell the cells of a trained scVI from doublets that are simulated of them, by
    their latent and their library size; a cell that it takes for a simulated doublet is likely to
    be one. Make it with :meth:`from_scvi_model`.

    Parameters
    ----------
    adata
        AnnData of features of cells and of simulated doublets, set up by :meth:`setup_anndata`.
    **config
        Options of the network: see :class:`SOLOConfig`.

    Raises
    ------
    NotSetUpError
        If `adata` has not been set up.
    UnknownOptionError, InvalidOptionError
        If an option is misspelt or has an invalid value.

    Notes
    -----
    The model's AnnData holds the features, not the counts: :meth:`save` with `save_anndata=True`
    writes all that :meth:`predict` and :meth:`call_doublets` need. It has columns in `obs` for the
    class, for the batch, and for the positions of the two cells of each simulated doublet, and in
    `obsm["X_pca"]` principal components of the counts, which :meth:`call_doublets` reads.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
    >>> vae = cellvae.model.SCVI(adata, n_latent=5)
    >>> vae.train(max_epochs=1, enable_progress_bar=False)
    >>> solo = cellvae.model.SOLO.from_scvi_model(vae)
    >>> solo.train(max_epochs=1, enable_progress_bar=False)
    >>> calls = solo.call_doublets(expected_rate=0.05)
    >>> (calls["doublet_call"] == "doublet").sum()
    20

    References
    ----------
    Bernstein, Fong, Lam, Roy, Hendrickson, Kelley (2020): Solo: doublet identification in
    single-cell RNA-seq via semi-supervised deep learning. Cell Systems 11, 95.
    """

    Config: ClassVar[type[SOLOConfig]] = SOLOConfig
    Keys: ClassVar[type[SOLOKeys]] = SOLOKeys
    Batch: ClassVar[type[SOLOBatch]] = SOLOBatch
    encoder_class: ClassVar[type[CountModel] | None] = SCVI
    config: SOLOConfig
    module: SOLOModule
    scvi_exportable: ClassVar[bool] = True
    missing_methods: ClassVar[Mapping[str, str]] = MappingProxyType(
        dict.fromkeys(("differential_abundance", "get_normalized_expression"), OF_COUNTS)
    )

    predict = predict_doublets
    call_doublets = call_doublets
    get_doublet_rate = get_doublet_rate

    @classmethod
    def from_scvi_model(
        cls,
        scvi_model: CountModel,
        adata: AnnData | None = None,
        restrict_to_batch: str | None = None,
        doublet_ratio: float = 2,
        *,
        seed: int = 1,
        **config: Any,
    ) -> Self:
        """Untrained model for the cells of a trained model of counts.

        Doublets are simulated within each batch, since cells of two batches were never together.
        Their covariates are those of their cells: categories of the first, the mean of numbers, the
        sum of size factors.

        Parameters
        ----------
        scvi_model
            Trained SCVI, SCANVI or LinearSCVI, also one that was loaded.
        adata
            Cells; None for those of `scvi_model`. Genes are matched by name.
        restrict_to_batch
            Category of the batch whose cells are used; None for all batches.
        doublet_ratio
            Simulated doublets per cell.
        seed
            Seed of the simulated doublets.
        **config
            Options of the network: see :class:`SOLOConfig`.

        Raises
        ------
        NotTrainedError
            If `scvi_model` has not been trained.
        InvalidOptionError
            If it is no model of counts, there is no such batch, or the ratio is not above 0.
        DataMismatchError
            If there are no counts, or genes or categories of `adata` are not those of the model.
        InvalidDataError
            If no batch has two cells.
        """
        if not isinstance(scvi_model, CountModel):
            raise InvalidOptionError(
                f"Expected a trained SCVI, SCANVI or LinearSCVI; got a {type(scvi_model).__name__}."
            )
        rows = scvi_model.rows_with_counts(adata)
        cells_of = scvi_model.adata if adata is None else adata
        assert cells_of is not None
        batch = batch_column(cells_of, scvi_model.registration.keys.batch_key)
        cells = cells_of_batch(batch, restrict_to_batch)
        parents = draw_parents(batch.to_numpy(dtype=object), cells, doublet_ratio, seed)
        doublets = DoubletRows(rows, parents)
        encoder: Any = scvi_model
        axes = ExpressionComponents.fit(rows, cells)
        of_cells, components = encode_features(encoder, rows, cells, axes)
        simulated, their_components = encode_features(
            encoder, doublets, np.arange(len(doublets)), axes
        )
        features = join_features(
            of_cells,
            simulated,
            cells_of.obs_names[cells],
            batch.iloc[cells],
            np.searchsorted(cells, parents),
            np.concatenate([components, their_components]),
        )
        cls.setup_anndata(features, labels_key=DOUBLET_NAMES.simulated)
        return cls(features, **config)

    @classmethod
    def create_doublets(
        cls,
        adata_manager: AnnDataManager | AnnData,
        doublet_ratio: float,
        indices: CellChoice = None,
        seed: int = 1,
    ) -> AnnData:
        """Simulate doublets: sums of the counts of two cells of one batch.

        Parameters
        ----------
        adata_manager
            `adata_manager` of a model of counts, or an AnnData that was set up for one.
        doublet_ratio
            Doublets per cell.
        indices
            Cells that may be a part of a doublet, by index, mask or name; None for all.
        seed
            Seed of the pairs.

        Returns
        -------
        AnnData [doublets, genes] with the columns of `obs` that the set-up names.

        Raises
        ------
        NotSetUpError
            If the AnnData was not set up for SCVI, SCANVI or LinearSCVI.
        InvalidOptionError
            If the ratio is not above 0.
        InvalidDataError
            If no batch has two cells.
        """
        adata, keys = cells_and_keys(adata_manager)
        cells = np.unique(cell_indices(indices, adata))
        batch = batch_column(adata, keys.batch_key).to_numpy(dtype=object)
        return make_doublets(adata, keys, draw_parents(batch, cells, doublet_ratio, seed))

    @staticmethod
    def fields(keys: SOLOKeys) -> tuple[Field, ...]:
        """Fields that the model reads from an AnnData."""
        return (Features("features", keys.layer), Category("labels", keys.labels_key))

    @staticmethod
    def expects_counts(config: SOLOConfig) -> bool:
        """Whether the features are whole numbers: they are not."""
        return False

    @staticmethod
    def build(registration: Registration[SOLOKeys], config: SOLOConfig) -> SOLOModule:
        """Network for these features and options.

        Raises
        ------
        InvalidDataError
            If the classes are not singlet and doublet.
        """
        found = registration.categories("labels")
        if found != (DOUBLET, SINGLET):
            raise InvalidDataError(
                f"Expected the classes '{DOUBLET}' and '{SINGLET}' in the column of labels_key; "
                f"got {quote_names([*map(str, found)])}. SOLO.from_scvi_model makes such an "
                "AnnData from a trained model."
            )
        return SOLOModule(registration.n_genes, config)

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """400 epochs; early stopping with patience 30 on `validation_loss`, after 500 steps.

        Before that, losses in eval mode say nothing of the weights. Without validation cells
        `train_loss` is monitored. A learning rate of 0.003 with a moving average of the weights
        ranks doublets as well as 0.001 or better, varies less from seed to seed and takes half
        as many epochs.
        """
        always = {
            "max_epochs": MAX_EPOCHS,
            "ema_decay": EMA_DECAY,
            "plan_kwargs": {"lr": LEARNING_RATE},
        }
        if kwargs.get("early_stopping") not in (None, True):
            return always
        monitor = "validation_loss" if self.will_validate(kwargs) else "train_loss"
        n_rows = WARMUP_STEPS if self.rows is None else len(self.rows)
        n_steps = max(1, round(n_rows / (kwargs.get("batch_size") or DEFAULT_BATCH_SIZE)))
        return {
            **always,
            "early_stopping": True,
            "early_stopping_monitor": monitor,
            "early_stopping_patience": EARLY_STOPPING_PATIENCE,
            "early_stopping_warmup_epochs": -(-WARMUP_STEPS // n_steps),
        }

    def will_validate(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether a run has validation cells, by its arguments or else the split of the last."""
        split_kwargs = {*kwargs} & {"train_size", "validation_size", "external_indexing", "reset"}
        split = kwargs.get("datasplitter_kwargs") or {}
        # Defaults are also asked for before there is a model, for flags of the command line.
        known = vars(self).get("split")
        if known is None or split_kwargs or {*split} & {"external_indexing"}:
            return has_validation_cells(kwargs)
        return bool(len(known.validation))

    def minify_adata(
        self,
        minified_data_type: MinifiedType = "latent_posterior_parameters",
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
        silent: bool = False,
    ) -> None:
        """Not supported: the AnnData of the model holds a few features of each cell, no counts.

        Raises
        ------
        InvalidOptionError
            Always.
        """
        raise InvalidOptionError("SOLO cannot be minified: its AnnData holds no counts.")


def batch_column(adata: AnnData, key: str | None) -> pd.Series[Any]:
    """Batch of each cell; one batch without a column."""
    if key is None:
        return pd.Series(np.full(adata.n_obs, "all", dtype=object), index=adata.obs_names)
    return adata.obs[key]


def cells_of_batch(batch: pd.Series[Any], category: object) -> np.ndarray:
    """Indices of the cells of a batch; of all cells for None.

    Raises
    ------
    InvalidOptionError
        If there is no such batch.
    """
    if category is None:
        return np.arange(len(batch))
    cells = np.flatnonzero(np.asarray(batch == category))
    if not len(cells):
        names = [str(name) for name in pd.unique(batch)]
        raise InvalidOptionError(
            f"Expected restrict_to_batch to be one of {quote_names(names, most=10)}; got "
            f"{category!r}.{did_you_mean(str(category), names)}"
        )
    return cells


def cells_and_keys(adata_manager: AnnDataManager | AnnData) -> tuple[AnnData, CountKeys]:
    """Cells, and the keys by which they were set up.

    Raises
    ------
    NotSetUpError
        If an AnnData was not set up for a model of counts.
    DataMismatchError
        If the model was loaded without cells.
    """
    if isinstance(adata_manager, AnnDataManager):
        cells = adata_manager.adata
        if cells is None:
            raise DataMismatchError("The model was loaded without cells. Load it with adata=...")
        return cells, adata_manager.model.registration.keys
    for model in (SCVI, SCANVI, LinearSCVI):
        keys: CountKeys | None = stored_keys(adata_manager, model.__name__, model.Keys)
        if keys is not None:
            return adata_manager, keys
    raise NotSetUpError(
        "Expected an AnnData that was set up for a model of counts; this one was not. Call "
        "SCVI.setup_anndata(adata, ...) first."
    )

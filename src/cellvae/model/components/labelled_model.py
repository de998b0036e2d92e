"""What semi-supervised models say about labels, and how they begin with trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cellvae.core.options import Options
from cellvae.data import Registration
from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.fields import Labels
from cellvae.data.setup.keys import Keys, keys_from_kwargs, store_keys
from cellvae.data.setup.obs_columns import label_text
from cellvae.data.setup.tables.cells import check_is_cells, table_of
from cellvae.errors import DataMismatchError, InvalidOptionError
from cellvae.estimator.minified_cells import refuse_minified
from cellvae.estimator.model import Model
from cellvae.inference import predict

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

K = TypeVar("K", bound=Keys)
L = TypeVar("L", bound="LabelledModel")


class LabelledModel(Model):
    """A model that learns the labels of some cells and predicts those of others."""

    was_pretrained = False
    """Whether the weights were initialized with those of a trained model without labels."""

    predict = predict

    @classmethod
    def keys_of_setup(cls, adata: AnnData, kwargs: Mapping[str, Any]) -> Any:
        """Keys from the arguments of a set-up, the unlabelled category as the column has it.

        Raises
        ------
        InvalidOptionError
            If there are no labels.
        """
        for name in ("labels_key", "unlabeled_category"):
            if kwargs.get(name) is None:
                raise InvalidOptionError(
                    f"Expected {name} for a model that learns labels; got None."
                )
        key, modality = kwargs["labels_key"], kwargs.get("modalities", {}).get("labels_key")
        check_is_cells(adata)
        table = table_of(adata, modality, has_features=False)
        text = label_text(table, key, kwargs["unlabeled_category"])
        return super().keys_of_setup(adata, {**kwargs, "unlabeled_category": text})

    def pretrained_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Few epochs if the weights were initialized with those of a trained model."""
        from cellvae.train.options.default_epochs import default_epochs

        if not self.was_pretrained or self.rows is None or kwargs.get("reset"):
            return {}
        return {"max_epochs": min(10, max(2, round(default_epochs(len(self.rows)) / 3)))}

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """Labels that the model can predict, in the order of its probabilities."""
        return known_labels(self.registration)

    @property
    def n_labels(self) -> int:
        """Number of labels that the model can predict."""
        return len(self.labels)

    @property
    def unlabeled_category(self) -> Scalar:
        """Value of the label column for cells whose label is unknown."""
        return self.registration.categories("labels")[-1]

    @property
    def unlabeled_category_(self) -> Scalar:
        """Same as `unlabeled_category`, under scvi-tools' name."""
        return self.unlabeled_category

    @property
    def original_label_key(self) -> str | None:
        """Column of `adata.obs` with the labels, under scvi-tools' name."""
        key: str | None = self.registration.keys.labels_key
        return key

    @property
    def labels_(self) -> NDArray[Any]:
        """Label of each of the model's cells in `adata.obs`, under scvi-tools' name, [cells].

        Raises
        ------
        DataMismatchError
            If the model has no cells.
        """
        if self.adata is None:
            raise DataMismatchError("The model was loaded without cells. Load it with adata=...")
        return self.labels_field().table(self.adata).obs[self.original_label_key].to_numpy()

    @property
    def _labeled_indices(self) -> NDArray[np.int64]:
        """Same as `labeled_indices`; notebooks of scvi-tools read it under this name."""
        return self.labeled_indices

    @property
    def _unlabeled_indices(self) -> NDArray[np.int64]:
        """Same as `unlabeled_indices`; notebooks of scvi-tools read it under this name."""
        return self.unlabeled_indices

    @property
    def labeled_indices(self) -> NDArray[np.int64]:
        """Indices of the cells whose label is known."""
        return np.flatnonzero(self.training_labels() >= 0)

    @property
    def unlabeled_indices(self) -> NDArray[np.int64]:
        """Indices of the cells whose label is unknown."""
        return np.flatnonzero(self.training_labels() < 0)

    def training_labels(self) -> NDArray[np.int64]:
        """Label of each of the model's cells, -1 where it is unknown, [cells]."""
        if self.adata is None:
            return np.zeros(0, dtype=np.int64)
        field = self.labels_field()
        record: Any = self.registration.fields["labels"]
        codes = field.category_codes(field.table(self.adata), record)
        return np.where(codes < self.n_labels, codes, -1)

    def labels_field(self) -> Labels:
        """Field that reads the labels."""
        field: Any = self.registration.fields["labels"].field("labels")
        return field


def known_labels(registration: Registration[Any]) -> tuple[Scalar, ...]:
    """Labels without the category of unlabelled cells."""
    return registration.categories("labels")[:-1]


def cells_of_trained(kind: type[Model], source: Any, adata: AnnData | None, name: str) -> AnnData:
    """Cells for a model that begins with the weights of a trained one: the given, or its own.

    Raises
    ------
    InvalidOptionError
        If the model is of another class than `kind`.
    NotTrainedError
        If it has not been trained.
    DataMismatchError
        If there are no cells.
    """
    if type(source) is not kind:
        raise InvalidOptionError(
            f"Expected {name} to be {indefinite(kind.__name__)}; got {type(source).__name__}."
        )
    source.check_trained()
    adata = source.adata if adata is None else adata
    if adata is None:
        raise DataMismatchError(f"The {kind.__name__} was loaded without cells. Give adata.")
    refuse_minified(adata, "make a model")
    return adata


def indefinite(name: str) -> str:
    """Name of a class with its article: an SCVI, a TOTALVI."""
    return f"{'an' if name[0] in 'AEIOS' else 'a'} {name}"


def merge_configs(source: Model, own: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a trained model and those of the classifier.

    Raises
    ------
    InvalidOptionError
        If one of them differs from that of the trained model.
    """
    config, name_of_class = source.config, type(source).__name__
    options = {f.name: getattr(config, f.name) for f in fields(config)}
    for name, value in own.items():
        if name in options and value != options[name]:
            raise InvalidOptionError(
                f"Expected {name} to be that of the {name_of_class}, {options[name]!r}; got "
                f"{value!r}. Leave it out, or train {indefinite(name_of_class)} with it."
            )
    return {**options, **own}


def label_keys(
    source: Model, keys_type: type[K], labels_key: str | None, unlabeled: object, adata: AnnData
) -> K:
    """Keys of a trained model with those of the labels.

    Raises
    ------
    InvalidOptionError
        If there is no column with labels.
    """
    known = source.registration.keys.to_json()
    column = known.get("labels_key") if labels_key is None else labels_key
    if column is None:
        raise InvalidOptionError(
            f"Expected labels_key, since the {type(source).__name__} was set up without labels. "
            "Give labels_key=<column of adata.obs>."
        )
    text = label_text(adata, column, unlabeled)
    kwargs = {**known, "labels_key": column, "unlabeled_category": text}
    return keys_from_kwargs(kwargs, keys_type)


def labelled_registration(source: Model, keys: K, field: Labels, adata: AnnData) -> Registration[K]:
    """Registration of a trained model for these cells, with their labels."""
    known = source.registration
    return Registration(
        axes=known.axes,
        n_cells=int(adata.n_obs),
        fields={**known.fields, "labels": field.describe(field.table(adata))},
        keys=keys,
    )


def begin_with_weights(
    cls: type[L],
    source: Model,
    weights: Mapping[str, Any],
    registration: Registration[Any],
    options: Options,
    adata: AnnData,
) -> L:
    """Model of labelled cells that begins with the weights of a trained model."""
    model = cls.__new__(cls)
    module = cls.build(registration, options)
    module.load_state_dict(module.state_dict() | dict(weights))
    model.assemble(registration, options, module.to(source.device))
    model.attach(adata, new=True)
    store_keys(adata, cls.__name__, registration.keys)
    model.was_pretrained = True
    return model

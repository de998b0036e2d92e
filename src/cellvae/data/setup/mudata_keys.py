"""Keys of a model that reads an AnnData or a MuData, and the modality of each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cellvae.data.setup.keys import Keys, SetupArgument, check_name
from cellvae.errors import InvalidOptionError, did_you_mean, quote_names

MODALITIES = "modalities"
RNA_LAYER = "rna_layer"
"""Name in `setup_mudata` of the key `layer`, as in scvi-tools."""
EXAMPLE = {RNA_LAYER: "rna", "protein_layer": "protein", "atac_layer": "atac"}
"""Modalities that an error shows."""


@dataclass(frozen=True, kw_only=True)
class MuDataKeys(Keys):
    """Keys of a model that reads an AnnData or a MuData.

    A subclass lists which of them `setup_anndata` and `setup_mudata` take, by position.

    Parameters
    ----------
    modalities
        Modality of each of these arguments, by its name. Columns without one are those of
        `mdata.obs`.
    """

    anndata_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that are arguments of `setup_anndata`, by position."""
    required_keys: ClassVar[tuple[str, ...]] = ()
    """Those of them that have no default."""
    mudata_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that are arguments of `setup_mudata`, by position; `modalities` follows."""
    table_arguments: ClassVar[tuple[str, ...]] = ()
    """Arguments of `setup_mudata` whose modalities are tables of counts."""
    all_tables_required: ClassVar[bool] = True
    """Whether each of these must have a modality, or one is enough."""
    keys_without_modality: ClassVar[tuple[str, ...]] = ()
    """Arguments of `setup_mudata` that are no columns or layers."""
    mudata_text: ClassVar[str] = "Cells that have all modalities, in any order."
    """What the MuData of `setup_mudata` has to hold, for its documentation."""
    rna_layer_text: ClassVar[str] = "Layer that holds the raw counts of genes; None for `X`."
    """Description of `rna_layer`, the key `layer` of `setup_mudata`."""

    modalities: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, MODALITIES, check_modalities(self.modalities))

    def __hash__(self) -> int:
        return hash(tuple(sorted(map(str, self.to_json().items()))))

    @property
    def unused_keys(self) -> tuple[str, ...]:
        """Keys that the set-up that was called does not have."""
        used = (*self.mudata_keys, MODALITIES) if self.modalities else self.anndata_keys
        return tuple(f.name for f in dataclasses.fields(self) if f.name not in used)

    @classmethod
    def anndata_setup(cls, first: object = ()) -> tuple[SetupArgument, ...]:
        """Arguments of `setup_anndata`, by position."""
        declared = {field.name: field for field in dataclasses.fields(cls)}
        return tuple(
            SetupArgument(name, name, declared[name], name in cls.required_keys)
            for name in cls.anndata_keys
        )

    @classmethod
    def mudata_setup(cls) -> tuple[SetupArgument, ...]:
        """Arguments of `setup_mudata`, by position."""
        declared = {field.name: field for field in dataclasses.fields(cls)}
        return tuple(
            SetupArgument(RNA_LAYER if key == "layer" else key, key, declared[key], False)
            for key in (*cls.mudata_keys, MODALITIES)
        )

    @classmethod
    def setup_modalities(cls, modalities: object) -> dict[str, str]:
        """Modality of each argument of `setup_mudata` that has one.

        Raises
        ------
        InvalidOptionError
            If a table has none, or there is no such argument.
        """
        given = check_modalities(modalities)
        without = (MODALITIES, *cls.keys_without_modality)
        known = [each.name for each in cls.mudata_setup() if each.name not in without]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise InvalidOptionError(
                f"Expected modalities of {quote_names(known, most=20)}; got '{unknown[0]}'."
                f"{did_you_mean(unknown[0], known)}"
            )
        missing = [name for name in cls.table_arguments if name not in given]
        if missing and (cls.all_tables_required or len(missing) == len(cls.table_arguments)):
            number = "" if cls.all_tables_required else "one of "
            shown = {name: EXAMPLE[name] for name in cls.table_arguments}
            raise InvalidOptionError(
                f"Expected a modality for {number}{quote_names(missing)} in modalities; got "
                f"{quote_names([*given]) or 'none'}. Give for example modalities={shown!r}."
            )
        return given


def check_modalities(value: object) -> dict[str, str]:
    """Modality of each key, by its name; keys without one are left out.

    Raises
    ------
    InvalidOptionError
        If it is not a mapping of strings.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidOptionError(
            "Expected modalities to map arguments to names of modalities, such as "
            f"{{'rna_layer': 'rna'}}; got {value!r}."
        )
    given = {str(key): name for key, name in value.items() if name is not None}
    return {key: str(check_name(name, f"modalities['{key}']")) for key, name in given.items()}

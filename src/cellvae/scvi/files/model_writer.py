"""Writer of a model as scvi-tools reads it: one file of torch in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.core.files.output_files import replace_atomically
from cellvae.scvi.files.model_file import MODEL_FILE


def write_scvi_model(
    folder: Path,
    prefix: str,
    *,
    names: Sequence[str] | Mapping[str, Sequence[str]],
    weights: Mapping[str, Tensor],
    attributes: Mapping[str, Any],
) -> Path:
    """Write the file, so that an older one stays whole until the new one is.

    Parameters
    ----------
    folder
        Folder, made if it is not there.
    prefix
        Beginning of the name of the file.
    names
        Names of the genes; for a MuData those of the features of each modality.
    weights
        Tensors of the network, by scvi-tools' names.
    attributes
        What scvi-tools keeps beside them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prefix}{MODEL_FILE}"
    values = {
        "model_state_dict": {name: t.detach().cpu().clone() for name, t in weights.items()},
        "var_names": {modality: as_object_array(part) for modality, part in names.items()}
        if isinstance(names, Mapping)
        else as_object_array(names),
        "attr_dict": dict(attributes),
    }
    with replace_atomically(path) as temporary:
        torch.save(values, temporary)
    return path


def as_object_array(names: Sequence[str]) -> NDArray[np.object_]:
    """Names in an array of objects."""
    return np.array(names, dtype=object)

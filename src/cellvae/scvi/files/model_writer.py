"""Writer of a model as scvi-tools reads it: one file of torch in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellvae.core.output_files import replace_atomically
from cellvae.scvi.files.model_file import MODEL_FILE


def write_scvi_model(
    folder: Path,
    prefix: str,
    *,
    genes: tuple[str, ...],
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
    genes
        Names of the genes.
    weights
        Tensors of the network, by scvi-tools' names.
    attributes
        What scvi-tools keeps beside them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prefix}{MODEL_FILE}"
    values = {
        "model_state_dict": {name: t.detach().cpu().clone() for name, t in weights.items()},
        "var_names": np.array(genes, dtype=object),
        "attr_dict": dict(attributes),
    }
    with replace_atomically(path) as temporary:
        torch.save(values, temporary)
    return path

"""What a run needs of its model's files and cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import Rows
from cellvae.train.records.history import History


class ModelFiles(Protocol):
    """Saves and loads the model of a run, and reads the names and columns of its cells."""

    def save(self, folder: Path, history: History, training: dict[str, Any]) -> None:
        """Write the model as it is now, complete enough to be loaded by itself."""
        ...

    def weights(self, folder: Path) -> dict[str, Tensor]:
        """Read the weights of a saved model."""
        ...

    def write_state(self, path: Path, values: dict[str, Any]) -> None:
        """Write the training state of a run that can be resumed."""
        ...

    def column(self, key: str, adata: Any = None) -> NDArray[Any]:
        """Read `adata.obs[key]`, a value per cell; of the model's own cells by default."""
        ...

    def names(self, cells: NDArray[np.int64]) -> list[str]:
        """Read the names of cells of the model."""
        ...

    def setup_key(self, name: str) -> str | None:
        """Read which column `setup_anndata` was given as `batch_key`, `labels_key` and so on."""
        ...

    def read(self, adata: Any) -> Rows[Any]:
        """Read other cells, with genes and categories matched by name."""
        ...

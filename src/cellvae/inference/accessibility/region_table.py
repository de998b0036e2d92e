"""Regions whose accessibility differs most between cells, for a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellvae.inference.accessibility.normalized_accessibility import accessibility
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.output_features import region_names
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice


def variable_regions(
    model: DecoderModel, adata: AnnData | None, indices: CellChoice, n_regions: int
) -> pd.DataFrame:
    """Regions whose accessibility differs most between cells.

    Parameters
    ----------
    model
        Trained model of the accessibility of regions.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    n_regions
        Number of regions.

    Returns
    -------
    DataFrame with a row for each region, in descending order of the standard deviation over the
    cells: `mean accessibility`, `standard deviation`, and the `region factor` where the model has
    them.
    """
    import pandas as pd

    names = region_names(model)
    # Means and squares over cells are accumulated, so that no matrix of all cells is made.
    sums = torch.zeros(2, len(names), dtype=torch.float64)
    cell_pass = plan_pass(model, adata, indices, None, silent=True)
    module: Any = model.module
    with inference_mode(model):
        for _, batch in cell_pass.iter_batches():
            exact = accessibility(module, batch, [None], True, False).double().cpu()
            sums += torch.stack([exact.sum(dim=0), exact.square().sum(dim=0)])
    mean, square = (sums / len(cell_pass.cells)).numpy()
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    columns = {"mean accessibility": mean, "standard deviation": deviation}
    if module.region_factors is not None:
        columns["region factor"] = module.region_factors.detach().sigmoid().double().cpu().numpy()
    table = pd.DataFrame(columns, index=pd.Index(names, name="region"))
    return table.sort_values("standard deviation", ascending=False, kind="stable").head(n_regions)

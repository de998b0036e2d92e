"""Proteins of a model, with their levels, for a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.posterior_samples import decode_samples, sample_latent
from cellvae.inference.proteins.protein_expression import ProteinOptions, protein_names
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from torch import Tensor

    from cellvae.inference.protocols import CellChoice


def protein_table(
    model: DecoderModel, adata: AnnData | None, indices: CellChoice, panels: Tensor
) -> pd.DataFrame:
    """Proteins, in how many panels and cells they are, and their levels.

    Parameters
    ----------
    model
        Trained model of proteins.
    adata
        Cells; None for those of the model.
    indices
        Cells to use, by index, mask or name; None for all.
    panels
        Whether each panel measured each protein, [panels, proteins].

    Returns
    -------
    DataFrame with a row for each protein: `panels that measured it`, `cells with foreground` (a
    fraction), `mean without background` and `mean background`, in counts.
    """
    import pandas as pd

    names = protein_names(model)
    options = ProteinOptions()
    sums = torch.zeros(3, len(names), dtype=torch.float64)
    cell_pass = plan_pass(model, adata, indices, None, silent=True)
    with inference_mode(model):
        for _, batch in cell_pass.iter_batches():
            latent = sample_latent(model.module, batch)
            counts: Any = decode_samples(model.module, latent, batch, output="protein")
            parts = [
                (options.foreground_probability(counts) > 0.5).double(),
                options.expression(counts).double(),
                counts.mu1.double(),
            ]
            sums += torch.stack([values.sum(dim=(0, 1)).cpu() for values in parts])
    foreground, expression, background = (sums / len(cell_pass.cells)).numpy()
    return pd.DataFrame(
        {
            "panels that measured it": panels.double().sum(dim=0).tolist(),
            "cells with foreground": foreground,
            "mean without background": expression,
            "mean background": background,
        },
        index=pd.Index(names, name="protein"),
    )

"""Genes with more zeros than a Poisson law gives; three ways to ask which genes differ."""

import json
import sys
from pathlib import Path

import anndata
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 9
adata = anndata.read_h5ad(DATA / "kang_ctrl_8donors.h5ad")[::8].copy()
adata.layers["counts"] = adata.X.copy()
table = scvi.data.poisson_gene_selection(
    adata, layer="counts", n_top_genes=500, batch_key="batch", inplace=False, silent=True
)
scvi.data.poisson_gene_selection(
    adata, layer="counts", n_top_genes=500, batch_key="batch", subset=False, silent=True
)
chosen = adata[:, adata.var["highly_variable"]].copy()

scvi.model.SCVI.setup_anndata(chosen, layer="counts", batch_key="batch")
model = scvi.model.SCVI(chosen)
model.train(max_epochs=40, accelerator="cpu", enable_progress_bar=False)

first, second = "B cells", "CD14+ Monocytes"
cell_idx1 = (chosen.obs["cell_type"] == first).to_numpy()
cell_idx2 = (chosen.obs["cell_type"] == second).to_numpy()
vanilla = model.differential_expression(idx1=cell_idx1, idx2=cell_idx2, mode="vanilla", silent=True)
change = model.differential_expression(
    groupby="cell_type", group1=first, group2=second, mode="change", delta=0.3, silent=True
)
corrected = model.differential_expression(
    idx1=cell_idx1, idx2=cell_idx2, mode="change", batch_correction=True,
    batchid1=["101", "1015"],
    batchid2=["101", "1015"], silent=True,
)  # fmt: skip
everyone = model.differential_expression(groupby="cell_type", silent=True, all_stats=False)

B = ("CD74", "CD37", "CD83")
MONOCYTES = ("TYROBP", "FCER1G", "TIMP1")
result = {
    "variable": sorted(
        {"observed_fraction_zeros", "expected_fraction_zeros", "prob_zero_enriched_nbatches",
         "prob_zero_enrichment", "prob_zero_enrichment_rank", "highly_variable"}
        & set(adata.var.columns)
    ),
    "selected": int(adata.var["highly_variable"].sum()),
    "table": list(table.shape),
    "observed": float(table["observed_fraction_zeros"].mean()),
    "expected": float(table["expected_fraction_zeros"].mean()),
    "markers": [g for g in (*B, *MONOCYTES) if bool(adata.var.loc[g, "highly_variable"])],
    "vanilla_up": [g for g in B if vanilla.loc[g, "bayes_factor"] > 2],
    "vanilla_down": [g for g in MONOCYTES if vanilla.loc[g, "bayes_factor"] < -2],
    "change_up": [g for g in B if change.loc[g, "lfc_mean"] > 1],
    "change_down": [g for g in MONOCYTES if change.loc[g, "lfc_mean"] < -1],
    "called": [g for g in (*B, *MONOCYTES) if change.loc[g, "proba_de"] > 0.9],
    "corrected_up": [g for g in B if corrected.loc[g, "lfc_mean"] > 1],
    "corrected_down": [g for g in MONOCYTES if corrected.loc[g, "lfc_mean"] < -1],
    "comparisons": sorted(everyone["comparison"].astype(str).unique()),
    "zeros": float(change.loc["TYROBP", "non_zeros_proportion2"]),
    "raw": float(change.loc["TYROBP", "raw_mean2"]),
}  # fmt: skip
print(json.dumps(result))

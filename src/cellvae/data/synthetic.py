"""Synthetic counts without structure, for tests and examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.errors import InvalidOptionError, did_you_mean, quote_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

RnaDistribution = Literal["nb", "normal"]
SparseFormat = Literal["csr_matrix", "csc_matrix", "csr_array", "csc_array"]


def synthetic_iid(
    batch_size: int = 200,
    n_genes: int = 100,
    n_proteins: int = 100,
    n_regions: int = 100,
    n_batches: int = 2,
    n_labels: int = 3,
    dropout_ratio: float = 0.7,
    sparse_format: SparseFormat | None = None,
    generate_coordinates: bool = False,
    return_mudata: bool = False,
    *,
    seed: int = 0,
    batch_key: str = "batch",
    labels_key: str = "labels",
    rna_key: str = "rna",
    gene_names_prefix: str = "gene",
    protein_expression_key: str = "protein_expression",
    protein_names_key: str = "protein_names",
    protein_names_prefix: str = "protein",
    accessibility_key: str = "accessibility",
    region_names_prefix: str = "region",
    coordinates_key: str = "coordinates",
    rna_dist: RnaDistribution = "nb",
) -> Any:
    """Independent, identically distributed counts: no cell types and no batch effect.

    Genes and regions are negative binomial (5 failures, probability 0.3: mean 11.67) with some
    values set to 0, proteins are plain negative binomial. The same arguments give the same
    data: random numbers come from `seed` alone, and no global generator is touched.

    Parameters
    ----------
    batch_size
        Cells of each batch.
    n_genes, n_proteins, n_regions
        Features of each modality; proteins and regions are left out if 0.
    n_batches
        Number of batches: `obs["batch"]` is `batch_0`, `batch_1`, ...
    n_labels
        Number of labels: `obs["labels"]` is `label_0`, ... at random; left out if 0.
    dropout_ratio
        Fraction of the genes' and regions' values that are **not** set to 0, as in scvi-tools.
    sparse_format
        Class of `scipy.sparse` that holds the matrices; dense if not given.
    generate_coordinates
        Whether to add random positions, `obsm["coordinates"]`, [cells, 2].
    return_mudata
        Whether to return a MuData with `rna`, `accessibility` and `protein_expression` instead.
    seed
        Seed of the random numbers.
    batch_key, labels_key
        Columns of `obs`.
    rna_key, accessibility_key, protein_expression_key
        Modalities of the MuData; the last two are entries of `obsm` of the AnnData.
    gene_names_prefix, region_names_prefix, protein_names_prefix
        Prefixes of the names of features: `gene` for `gene_0`.
    protein_names_key
        Entry of `uns` with the names of the proteins.
    coordinates_key
        Entry of `obsm` with the positions.
    rna_dist
        Distribution of the genes: `"nb"` as above, or `"normal"` with mean 5 and standard deviation
        2, some values set to 0.

    Returns
    -------
    AnnData
        Counts of genes in `X`, single precision, [cells, genes]; regions and proteins in
        `obsm["accessibility"]` and `obsm["protein_expression"]`, names of the proteins in
        `uns["protein_names"]`. Or a MuData with the same.

    Raises
    ------
    InvalidOptionError
        If a number is out of range or `sparse_format` is unknown.
    ImportError
        If a MuData is asked for and the package mudata is not installed.
    """
    at_least_one = {"batch_size": batch_size, "n_genes": n_genes, "n_batches": n_batches}
    at_least_zero = {"n_proteins": n_proteins, "n_regions": n_regions, "n_labels": n_labels}
    check_numbers(at_least_one, 1)
    check_numbers(at_least_zero, 0)
    check_arguments(dropout_ratio, sparse_format, rna_dist)
    from anndata import AnnData

    random = np.random.default_rng(seed)
    n_cells = batch_size * n_batches
    obs = pd.DataFrame(index=[str(cell) for cell in range(n_cells)])
    names = np.array([f"batch_{batch}" for batch in range(n_batches)])
    obs[batch_key] = pd.Categorical(np.repeat(names, batch_size))
    genes = sample_counts(random, n_cells, n_genes, dropout_ratio, sparse_format, rna_dist)
    proteins = sample_counts(random, n_cells, n_proteins, None, sparse_format)
    regions = sample_counts(random, n_cells, n_regions, dropout_ratio, sparse_format)
    proteins_var = make_var(protein_names_prefix, n_proteins)
    if n_labels:
        codes = random.integers(0, n_labels, n_cells)
        obs[labels_key] = pd.Categorical([f"label_{code}" for code in codes])
    positions = random.normal(size=(n_cells, 2)) if generate_coordinates else None

    adata = AnnData(genes, obs=obs, var=make_var(gene_names_prefix, n_genes))
    if return_mudata:
        modalities = {
            rna_key: (adata.X, adata.var),
            accessibility_key: (regions, make_var(region_names_prefix, n_regions)),
            protein_expression_key: (proteins, proteins_var),
        }
        adata = as_mudata(obs, modalities)
    else:
        if n_regions:
            adata.obsm[accessibility_key] = regions
        if n_proteins:
            adata.obsm[protein_expression_key] = proteins
            adata.uns[protein_names_key] = proteins_var.index.to_numpy()
    if positions is not None:
        adata.obsm[coordinates_key] = positions
    return adata


def check_numbers(numbers: dict[str, int], minimum: int) -> None:
    """Raise if a number is too small."""
    for name, value in numbers.items():
        if value < minimum:
            raise InvalidOptionError(f"Expected {name} of at least {minimum}; got {value}.")


def check_arguments(dropout_ratio: float, sparse_format: str | None, rna_dist: str) -> None:
    """Raise if an argument is invalid."""
    if not 0 <= dropout_ratio <= 1:
        raise InvalidOptionError(f"Expected a dropout_ratio from 0 to 1; got {dropout_ratio}.")
    formats = get_args(SparseFormat)
    if sparse_format is not None and sparse_format not in formats:
        raise InvalidOptionError(
            f"Expected sparse_format to be one of {quote_names(formats)}, or None; got "
            f"'{sparse_format}'.{did_you_mean(sparse_format, formats)}"
        )
    if rna_dist not in get_args(RnaDistribution):
        raise InvalidOptionError(f"Expected rna_dist to be 'nb' or 'normal'; got '{rna_dist}'.")


def sample_counts(
    random: np.random.Generator,
    n_cells: int,
    n_features: int,
    nonzero_fraction: float | None,
    sparse_format: str | None,
    distribution: RnaDistribution = "nb",
) -> Any:
    """Negative binomial counts or normal values, [cells, features], with a random part set to 0."""
    shape = (n_cells, n_features)
    values = (
        random.negative_binomial(5, 0.3, shape)
        if distribution == "nb"
        else random.normal(5, 2, shape)
    )
    counts: NDArray[np.float32] = values.astype(np.float32)
    if nonzero_fraction is not None:
        counts *= random.random(counts.shape) < nonzero_fraction
    formats = {name: getattr(sparse, name) for name in get_args(SparseFormat)}
    return counts if sparse_format is None else formats[sparse_format](counts)


def make_var(prefix: str, n: int) -> pd.DataFrame:
    """Features without annotation, named `gene_0`, `gene_1`, ..."""
    return pd.DataFrame(index=[f"{prefix}_{number}" for number in range(n)])


def as_mudata(obs: pd.DataFrame, modalities: dict[str, tuple[Any, pd.DataFrame]]) -> Any:
    """MuData of the modalities that have features, with the columns of `obs`."""
    try:
        from mudata import MuData
    except ImportError as error:
        raise ImportError(
            "Expected the package mudata for return_mudata=True; it is not installed. "
            "Install it with: pip install mudata"
        ) from error
    from anndata import AnnData

    empty_obs = pd.DataFrame(index=obs.index)
    mudata = MuData(
        {
            name: AnnData(counts, obs=empty_obs, var=var)
            for name, (counts, var) in modalities.items()
            if len(var)
        }
    )
    for column in obs.columns:
        mudata.obs[column] = obs[column]
    return mudata

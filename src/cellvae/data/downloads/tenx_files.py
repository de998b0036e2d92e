"""Files of the data sets of 10x Genomics, by the version of Cell Ranger that wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from cellvae.data.downloads.files import TENX, DatasetFile
from cellvae.errors import InvalidOptionError, did_you_mean, quote_names


class Release(NamedTuple):
    """Data sets of one version of Cell Ranger, and the ending of their file names."""

    ending: str
    names: tuple[str, ...]


RELEASES: Mapping[str, Release] = MappingProxyType(
    {
        "1.1.0": Release(
            "gene_bc_matrices.tar.gz",
            (
                "frozen_pbmc_donor_a",
                "frozen_pbmc_donor_b",
                "frozen_pbmc_donor_c",
                "fresh_68k_pbmc_donor_a",
                "cd14_monocytes",
                "b_cells",
                "cd34",
                "cd56_nk",
                "cd4_t_helper",
                "regulatory_t",
                "naive_t",
                "memory_t",
                "cytotoxic_t",
                "naive_cytotoxic",
            ),
        ),
        "1.3.0": Release("gene_bc_matrices_h5.h5", ("1M_neurons",)),
        "2.1.0": Release(
            "gene_bc_matrices.tar.gz", ("pbmc8k", "pbmc4k", "t_3k", "t_4k", "neuron_9k")
        ),
        "3.0.0": Release(
            "feature_bc_matrix.h5",
            (
                "pbmc_1k_protein_v3",
                "pbmc_10k_protein_v3",
                "malt_10k_protein_v3",
                "pbmc_1k_v2",
                "pbmc_1k_v3",
                "pbmc_10k_v3",
                "hgmm_1k_v2",
                "hgmm_1k_v3",
                "hgmm_5k_v3",
                "hgmm_10k_v3",
                "neuron_1k_v2",
                "neuron_1k_v3",
                "neuron_10k_v3",
                "heart_1k_v2",
                "heart_1k_v3",
                "heart_10k_v3",
            ),
        ),
        "3.1.0": Release(
            "feature_bc_matrix.h5", ("5k_pbmc_protein_v3", "5k_pbmc_protein_v3_nextgem")
        ),
    }
)
VERSIONS: Mapping[str, str] = MappingProxyType(
    {name: version for version, release in RELEASES.items() for name in release.names}
)
"""Version of Cell Ranger by name of the data set."""


def tenx_file(dataset_name: str, return_filtered: bool) -> DatasetFile:
    """File of a data set of 10x Genomics, named `<data set>/<filtered or raw>_...`.

    Raises
    ------
    InvalidOptionError
        If there is no data set of this name.
    """
    if dataset_name not in VERSIONS:
        raise InvalidOptionError(
            f"Expected dataset_name to be a data set of 10x Genomics; got '{dataset_name}'."
            f"{did_you_mean(str(dataset_name), VERSIONS)} Known are "
            f"{quote_names([*VERSIONS], len(VERSIONS))}. For another one give filename and url."
        )
    version = VERSIONS[dataset_name]
    name = f"{'filtered' if return_filtered else 'raw'}_{RELEASES[version].ending}"
    address = f"{TENX}/{version}/{dataset_name}/{dataset_name}_{name}"
    # For a long time their server answered to http only.
    return DatasetFile(f"{dataset_name}/{name}", (address, address.replace("https:", "http:", 1)))

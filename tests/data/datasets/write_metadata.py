"""Metadata of blood cells as the published file has them: run with Python 3.6 and pandas 0.23.

python write_metadata.py pbmc_metadata.pickle
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd

BARCODES = ["CC-1", "AA-1", "GG-1", "TT-1", "AC-11", "CA-1"]


def main() -> None:
    n = len(BARCODES)
    numbers = np.arange(n)
    design = pd.DataFrame(
        {"(Intercept)": np.ones(n, dtype=int), "batchpbmc4k": numbers % 2, "WPC1": numbers / 8},
        index=pd.Int64Index(numbers + 1),
    )
    quality = {"num_umi": numbers * 100, "num_reads": numbers * 150, "mapped": numbers / 10}
    raw = pd.DataFrame(quality, index=pd.Index(BARCODES, name="x"))
    metadata = {
        "design": design,
        "raw_qc": raw,
        "qc_pc": np.arange(2.0 * n).reshape(n, 2),
        "normalized_qc": pd.DataFrame(raw.values / 10, columns=raw.columns, index=design.index),
        "barcodes": pd.DataFrame({"ind": numbers}, index=raw.index),
        "clusters": np.array([2, 0, 1, 1, 0, 2]),
        "list_clusters": np.array(["B cells", "CD4 T cells", "NK cells"], dtype=object),
    }
    with Path(sys.argv[1]).open("wb") as file:
        pickle.dump(metadata, file, protocol=3)


if __name__ == "__main__":
    main()

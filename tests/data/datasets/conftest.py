"""Tiny files in the formats of the published ones, and a server that gives files."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import io as scipy_io
from scipy import sparse

from cellvae.data.downloads.files import FILES, DatasetFile

HERE = Path(__file__).parent
SUBTYPES = ["Astrocyte Gfap", "Inhibitory Vip", "pyramidal L4", "Endothelial 1", "C. Plexus"]
BATCHES = {
    "pbmc8k": ["AA-1", "CC-1", "GG-1"],
    # AA-1 is in both: the metadata then mean this one.
    "pbmc4k": ["AA-1", "TT-1", "CA-1", "XX-1"],
}
GENES = ["ENSG1", "ENSG2", "ENSG3", "ENSG4"]


def counts(n_cells: int, n_genes: int, seed: int, most: int = 5) -> sparse.csr_matrix:
    random = np.random.default_rng(seed)
    return sparse.csr_matrix(random.integers(0, most, (n_cells, n_genes)).astype(np.float32))


def cells(matrix: sparse.csr_matrix, obs: dict[str, list[object]], prefix: str = "cell") -> AnnData:
    index = [f"{prefix}{number}" for number in range(matrix.shape[0])]
    var = pd.DataFrame(index=[f"gene{number}" for number in range(matrix.shape[1])])
    return AnnData(matrix, obs=pd.DataFrame(obs, index=index), var=var)


def write_plain(folder: Path) -> None:
    types = ["Cardiomyocyte", "doublets", "NotAssigned", "Fibroblast"]
    cells(counts(8, 5, 0), {"cell_type": types * 2}).write_h5ad(folder / "hca_subsampled_20k.h5ad")
    purified = cells(
        counts(9, 4, 1),
        {
            "batch": ["0", "0", "1", "1", "2", "2", "2", "7", "7"],
            "cell_types": ["cd4_t_helper"] * 2
            + ["b_cells"] * 2
            + ["cd34"] * 3
            + ["cd4_t_helper"] * 2,
            "labels": [1, 1, 0, 0, 2, 2, 2, 1, 1],
        },
    )
    purified.write_h5ad(folder / "PurifiedPBMCDataset.h5ad")
    for seed, name in enumerate(("retina", "mpfc-starmap", "fc-dropseq", "simulation_2")):
        part = cells(counts(4, 3, seed), {"batch": [0, 1, 0, 1], "labels": [seed] * 4})
        part.write_h5ad(folder / f"{name}.h5ad")
    fish = cells(
        counts(10, 6, 2),
        {
            "str_labels": SUBTYPES * 2,
            "labels": [*range(5)] * 2,
            "batch": [0] * 10,
            "x_coord": [*range(10)],
            "y_coord": [*range(10, 20)],
        },
    )
    fish.X = fish.X.toarray()
    fish.obs["str_labels"] = fish.obs["str_labels"].astype("category")
    fish.write_h5ad(folder / "smfish.h5ad")


def write_proteins(folder: Path) -> None:
    for seed, (name, names, genes) in enumerate(
        (
            ("pbmc_10k_protein_v3", ["CD3", "CD4", "CD8"], [0, 1, 2, 3]),
            ("pbmc_5k_protein_v3", ["CD4", "CD8", "CD19", "CD3"], [3, 1, 0]),
        )
    ):
        part = cells(counts(3, 4, seed), {"n_genes": [seed] * 3})[:, genes].copy()
        part.obsm["protein_expression"] = np.arange(3.0 * len(names)).reshape(3, -1) + seed
        part.uns["protein_names"] = np.array(names, dtype=object)
        part.write_h5ad(folder / f"{name}.h5ad")
    for name, proteins, hashtags in (
        ("111", ["A", "B"], "htos"),
        ("208", ["B", "C"], "isotypes_htos"),
    ):
        part = cells(
            counts(4, 3, int(name)),
            {
                "batch": [f"SLN{name}"] * 4,
                "leiden_subclusters": ["0", "16,0", "25", "2,1"],
                "cell_types": ["B", "x", "x", "T"],
            },
            f"c{name}-",
        )
        part.obsm["protein_expression"] = pd.DataFrame(
            np.arange(8.0).reshape(4, 2), columns=proteins, index=part.obs_names
        )
        part.obsm[hashtags] = pd.DataFrame(np.ones((4, 1)), columns=["hto"], index=part.obs_names)
        part.uns["protein_names"] = np.array(proteins, dtype=object)
        part.write_h5ad(folder / f"sln_{name}.h5ad")


def write_seurat(folder: Path) -> None:
    """Twelve cells in six batches; four of them fail one filter each."""
    names = [f"P{number}" for number in range(160)]
    names += ["CD3-1", "CD3-2", "CD4-1", "Notch-1", "Notch-2", "TCR-1", "TCR-2", "HLA-A-2"]
    matrix = np.array(counts(12, 5, 3).toarray()) + 1
    adata = cells(
        sparse.csr_matrix(matrix.astype(np.float32)),
        {
            "orig.ident": [f"P{number // 2}_0" for number in range(12)],
            "celltype.l2": ["B"] * 3 + ["Doublet"] + ["NK"] * 8,
        },
    )
    adata.var_names = ["MT-CO1", "G1", "G2", "MTOR", "G4"]
    # 1 of at least 9, or all of cell 5.
    dense = adata.X.toarray()
    dense[:, 0], dense[:, 1] = 1, 20
    dense[5, 1:] = 1
    adata.X = sparse.csr_matrix(dense)
    proteins = np.full((12, len(names)), 20.0) + np.arange(12)[:, None]
    proteins[0, :20] = 0  # 148 proteins
    proteins[1] = 10  # too few counts
    proteins[2] = 1000  # too many
    adata.obsm["protein_counts"] = pd.DataFrame(proteins, columns=names, index=adata.obs_names)
    adata.write_h5ad(folder / "pbmc_seurat_v4.h5ad")


def write_tables(folder: Path) -> None:
    random = np.random.default_rng(4)
    values = random.integers(0, 4, (3, 5))
    lines = ["\ttissue\t" + "\t".join("abcab")]
    lines += ["\tgroup #\t" + "\t".join(["2", "10", "2", "1", "10"])]
    lines += [f"\tfield {number}\t" + "\t".join("00000") for number in range(2, 8)]
    lines += ["\tlevel1class\t" + "\t".join(["oligo", "inter", "oligo", "pyr", "inter"])]
    lines += ["\tlevel2class\t" + "\t".join("00000"), ""]
    genes = ["Tspan12", "NA", "1700007P06Rik"]
    lines += [
        f"{gene}\t{k}\t" + "\t".join(map(str, row))
        for k, (gene, row) in enumerate(zip(genes, values, strict=True))
    ]
    (folder / "expression.bin").write_text("\n".join(lines) + "\n")
    for name in ("Layer2_BC_count_matrix-1.tsv", "Rep11_MOB_count_matrix-1.tsv"):
        table = pd.DataFrame(values, index=["1x2", "3x4", "5.5x6"], columns=list("ABCDE"))
        table.to_csv(folder / name, sep="\t")


def write_brain(folder: Path) -> None:
    random = np.random.default_rng(5)
    # Genes of very different variances; cells 3 and 8 have too few counts.
    dense = random.poisson([0.5, 8, 2, 30, 0.1, 4], (20, 6))
    dense[3], dense[8] = 0, [0, 0, 0, 1, 0, 0]
    matrix = sparse.csc_matrix(dense.T)
    with h5py.File(folder / "brain_large.h5", "w") as file:
        group = file.create_group("mm10")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape)


def tenx_archive(barcodes: list[str], seed: int, inside: str, *, hostile: str = "") -> bytes:
    """Archive as Cell Ranger 2 writes it, with what a Mac adds."""
    matrix = sparse.coo_matrix(counts(len(barcodes), len(GENES), seed).T.astype(int))
    text = io.BytesIO()
    scipy_io.mmwrite(text, matrix)
    files = {
        "._matrix.mtx": b"\0Mac",
        "barcodes.tsv": "\n".join(barcodes).encode() + b"\n",
        "genes.tsv": "".join(f"{gene}\tS{gene[-1]}\n" for gene in GENES).encode(),
        "matrix.mtx": text.getvalue(),
        "readme.txt": b"not needed",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{hostile}{inside}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def write_pbmc(folder: Path) -> None:
    for seed, (name, barcodes) in enumerate(BATCHES.items()):
        (folder / name).mkdir()
        archive = tenx_archive(barcodes, 40 + seed, "filtered_gene_bc_matrices/GRCh38")
        (folder / name / "filtered_gene_bc_matrices.tar.gz").write_bytes(archive)
    table = pd.DataFrame({"ENSG": ["ENSG4", "ENSG9", "ENSG2", "ENSG1"], "GS": list("abcd")})
    table.to_csv(folder / "gene_info_pbmc.csv")
    shutil.copy(HERE / "pbmc_metadata.pickle", folder)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data sets")
    for write in (write_plain, write_proteins, write_seurat, write_tables, write_brain, write_pbmc):
        write(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with every file, whose checksums count as the published ones where there are some."""
    copy = tmp_path / "files"
    shutil.copytree(written, copy)
    for name, file in FILES.items():
        if file.sha256 is not None and (copy / name).exists():
            found = hashlib.sha256((copy / name).read_bytes()).hexdigest()
            monkeypatch.setitem(FILES, name, file._replace(sha256=found))
    return copy


class Server(http.server.ThreadingHTTPServer):
    """Server of files by path; the first requests of a path can get another answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.first_answers: dict[str, list[str]] = {}
        self.requests: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def file(
        self, name: str, content: bytes, *answers: str, sha256: str | None = None
    ) -> DatasetFile:
        """File that is served, after such answers: a status, `cut`, `other` or `close`."""
        self.files[f"/{name}"] = content
        self.first_answers[f"/{name}"] = [*answers]
        return DatasetFile(name, (self.url(name),), sha256)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        answers = self.server.first_answers.get(self.path, [])
        answer = answers.pop(0) if answers else ""
        if answer == "close":
            self.close_connection = True
            return
        if answer.isdigit() or self.path not in self.server.files:
            self.send_error(int(answer or 404))
            return
        content = b"<html>Log in</html>" if answer == "other" else self.server.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if answer == "cut" else content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("cellvae.data.downloads.fetch.RETRY_DELAYS", (0.0, 0.0))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def packed() -> bytes:
    """Content that starts as a compressed file does."""
    return gzip.compress(np.random.default_rng(6).bytes(200_000))

"""Asks models in groups of processes, each forked from one that has imported everything.

`ask_in_processes.py FOLDER` writes what the processes have got to FOLDER/NAME/seen-RANK.pickle.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from scipy import sparse

from cellvae.data import open_cells, synthetic_iid
from cellvae.data.batches import read_ahead
from cellvae.data.files.streaming_writer import CellWriter, has_zarr
from cellvae.errors import CellvaeError, OutputError
from cellvae.inference import share_cells
from cellvae.inference.sharing import process_rounds
from cellvae.model import MODELS

N_CELLS = 300
ORDER = np.random.default_rng(0).permutation(N_CELLS)[:250]


def make_model(name: str, cells: Any = None, setup: dict[str, Any] | None = None) -> Any:
    """Model that answers as a trained one does, the same in all processes."""
    if cells is None:
        cells = synthetic_iid(batch_size=150, n_genes=24, n_proteins=5, n_regions=0)
    MODELS[name].setup_anndata(cells, batch_key="batch", **(setup or {}))
    torch.manual_seed(0)
    model: Any = MODELS[name](cells)
    model.is_trained = True
    return model


def ask_scvi() -> dict[str, Any]:
    model = make_model("SCVI")
    genes = {"gene_list": ["gene_7", "gene_3"], "transform_batch": ["batch_0", "batch_1"]}
    of_some = {"indices": ORDER, "batch_size": 32}
    return {
        "latent": model.get_latent_representation(batch_size=64),
        "latent of some": model.get_latent_representation(**of_some),
        "posterior": model.get_latent_representation(return_dist=True, **of_some),
        "drawn": model.get_latent_representation(give_mean=False, **of_some),
        "drawn again": model.get_latent_representation(give_mean=False, **of_some),
        "one cell": model.get_latent_representation(indices=[7], give_mean=False),
        "expression": model.get_normalized_expression(n_samples=3, **genes, **of_some),
        "samples": model.get_normalized_expression(n_samples=3, return_mean=False, **of_some),
        "population": model.get_normalized_expression(n_samples_overall=90, batch_size=16),
        "elbo": model.get_elbo(batch_size=64),
        "elbos": model.get_elbo(return_mean=False, **of_some),
        "error": model.get_reconstruction_error(return_mean=False, batch_size=64),
        "parameters": model.get_likelihood_parameters(n_samples=2, give_mean=False, **of_some),
        "marginal": model.get_marginal_ll(n_mc_samples=3, return_mean=False, **of_some),
        "sampled": model.posterior_predictive_sample(**of_some).toarray(),
        "differential": model.differential_expression(
            groupby="batch", group1="batch_0", n_samples_overall=20
        ),
    }


def ask_others() -> dict[str, Any]:
    labels = {"labels_key": "labels", "unlabeled_category": "label_0"}
    scanvi = make_model("SCANVI", setup=labels)
    regions = synthetic_iid(batch_size=150, n_genes=30, n_proteins=0, n_regions=0)
    regions.X = (regions.X > 0).astype(np.float32)
    peakvi = make_model("PEAKVI", regions)
    totalvi = make_model("TOTALVI", setup={"protein_expression_obsm_key": "protein_expression"})
    kwargs = {"batch_size": 32}
    kept = peakvi.get_normalized_accessibility(threshold=0.45, return_numpy=True, **kwargs)
    return {
        "labels": scanvi.predict(indices=ORDER, **kwargs),
        "probabilities": scanvi.predict(soft=True, use_posterior_mean=False, **kwargs),
        "regions": peakvi.get_normalized_accessibility(use_z_mean=False, indices=ORDER, **kwargs),
        "sparse regions": (kept.data, kept.indices, kept.indptr),
        "depth": peakvi.get_library_size_factors(**kwargs),
        "joint": totalvi.get_normalized_expression(n_samples=2, **kwargs),
        "foreground": totalvi.get_protein_foreground_probability(n_samples=2, **kwargs),
    }


def ask_files(folder: Path, out: Path) -> dict[str, Any]:
    read: list[torch.Tensor] = []
    pieces: list[slice] = []
    load_rows, transfer = read_ahead.load_rows, process_rounds.transfer

    def note(rows: Any, cells: torch.Tensor, stopped: Any) -> Any:
        read.append(cells)
        return load_rows(rows, cells, stopped)

    def note_piece(*arguments: Any, **kwargs: Any) -> Any:
        taken = transfer(*arguments, **kwargs)
        pieces.extend([] if taken is None else [taken.positions])
        return taken

    model = make_model("SCVI", open_cells(folder / "part*.h5ad"))
    read_ahead.load_rows = note  # type: ignore[assignment]
    kwargs = {"batch_size": 32, "indices": np.arange(20, N_CELLS)}
    found: dict[str, Any] = {"latent": model.get_latent_representation(**kwargs)}
    n_read = len(torch.cat(read))
    for suffix in ("h5ad", "zarr") if has_zarr() else ("h5ad",):
        path = out / f"expression.{suffix}"
        pieces.clear()
        process_rounds.transfer = note_piece
        assert model.get_normalized_expression(n_samples=2, out=path, **kwargs) == path
        process_rounds.transfer = transfer
        # When one process has its answer, the file of the first is complete.
        written = anndata.read_h5ad(path) if suffix == "h5ad" else anndata.read_zarr(path)
        found[suffix] = written.to_df()
        assert model.get_elbo(out=out / f"elbo.{suffix}", **kwargs).exists()
    found["in memory"] = model.get_normalized_expression(n_samples=2, **kwargs)
    sizes = [positions.stop - positions.start for positions in pieces]
    return {"found": found, "n_read": n_read, "pieces": sizes}


def fail(rank: int, out: Path) -> dict[str, str]:
    """What two processes see when one of them fails in each of several ways."""
    model = make_model("SCVI")
    seen: dict[str, str] = {}
    encode = model.module.encode

    def attempt(name: str, question: Callable[[], Any]) -> None:
        begin = time.monotonic()
        try:
            seen[name] = f"fine: {question()}"
        except (CellvaeError, ValueError, KeyboardInterrupt) as error:
            seen[name] = f"{type(error).__name__}: {error}"
        # Another process may be waited for, but not until gloo gives up.
        assert time.monotonic() - begin < 600

    def latent(**kwargs: Any) -> Any:
        return model.get_latent_representation(batch_size=32, **kwargs)

    def latent_with(in_batch: Callable[[], Any], **kwargs: Any) -> Any:
        def of_batch(batch: Any) -> Any:
            if rank == 1:
                in_batch()
            return encode(batch)

        model.module.encode = of_batch
        try:
            return latent(**kwargs)
        finally:
            del model.module.encode

    def shared() -> None:
        with share_cells():
            attempt("in a batch", lambda: latent_with(lambda: throw(ValueError("no such luck"))))
            attempt("Ctrl-C", lambda: latent_with(lambda: throw(KeyboardInterrupt())))
            attempt("after them", lambda: latent().shape)
            attempt("other cells", lambda: latent(indices=[rank]))
            attempt("other question", latent if rank else lambda: model.get_elbo(batch_size=32))
            write = CellWriter.write
            if rank == 0:
                CellWriter.write = lambda *_: throw(OutputError("full"))  # type: ignore
            attempt("full disk", lambda: latent(out=out / "full.h5ad"))
            CellWriter.write = write  # type: ignore[method-assign]
            attempt("before a question", lambda: latent(out="no.txt" if rank else None))

    def killed() -> None:
        with share_cells():
            latent_with(lambda: os._exit(0))

    attempt("the end", shared)
    (out / f"seen-{rank}.pickle").write_bytes(pickle.dumps(seen))
    attempt("killed", killed)
    return seen


def throw(error: BaseException) -> None:
    raise error


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["CELLVAE_DATA_DIR"] = str(folder / "checked")
    cells = synthetic_iid(batch_size=150, n_genes=24, n_proteins=0, n_regions=0)
    cells.X = sparse.csr_matrix(cells.X)
    for number in range(3):
        part = cells[number * 100 : number * 100 + 100].copy()
        part.write_h5ad(folder / f"part{number}.h5ad")
    children = []
    for name, size in (("alone", 1), ("devices", 1), ("two", 2), ("three", 3), ("fail", 2)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / name).mkdir()
        for rank in range(size):
            child = os.fork()
            if child:
                children.append(child)
                continue
            started_by = as_slurm if name == "three" else as_torchrun
            os.environ.update(MASTER_PORT=str(port), **started_by(rank, size))
            run(folder, name, rank)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), codes


def as_torchrun(rank: int, size: int) -> dict[str, str]:
    """Environment of a process that torchrun has started."""
    return {
        "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
    }  # fmt: skip


def as_slurm(rank: int, size: int) -> dict[str, str]:
    """Environment of a task of a job step of SLURM on one node."""
    return {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "test", "SLURM_STEP_ID": "0",
        "SLURM_NNODES": "1", "SLURM_NTASKS": str(size),
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
    }  # fmt: skip


def run(folder: Path, name: str, rank: int) -> None:
    torch.manual_seed(rank)
    if name == "three":
        # A batch of 32 cells is a piece, so that processes exchange several, and not equally many.
        process_rounds.PIECE_BYTES = 32 * 24 * 4
    found: dict[str, Any]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "fail":
            found = fail(rank, folder / name)
        else:
            with share_cells(["cpu"] * 3 if name == "devices" else None):
                found = {"random number": torch.rand(()).item()}
                found |= {"scvi": ask_scvi(), "others": ask_others()}
                found["files"] = ask_files(folder, folder / name)
    (folder / name / f"seen-{rank}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

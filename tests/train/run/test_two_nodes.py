"""Two nodes of one process each: one is killed, the other says so, and the run continues."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.trains, pytest.mark.slow]

COMMON = textwrap.dedent("""
    import hashlib, json, os, signal, sys
    from pathlib import Path
    import lightning.pytorch as pl
    import torch, cellvae
    torch.set_num_threads(1)

    WORDS = {"max_epochs": 6, "batch_size": 33, "accelerator": "cpu", "seed": 3,
             "enable_progress_bar": False, "early_stopping": True, "check_val_every_n_epoch": 1}
    SEVERAL = {"devices": 1, "num_nodes": 2, "strategy": "ddp"}

    def make():
        adata = cellvae.data.synthetic_iid(batch_size=100, n_genes=12, n_proteins=0, n_regions=0)
        cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
        torch.manual_seed(0)
        return cellvae.model.SCVI(adata, n_hidden=8, n_latent=3)

    def facts(model):
        tensors = model.module.parameters()
        report = model.training_report
        return {
            "weights": hashlib.sha256(
                b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest(),
            "history": {k: v.tolist() for k, v in model.history.table.items()},
            "report": [report.status, report.epochs, report.best_epoch, report.restored_epoch],
            "resumed": report.resumed_epoch,
            "skipped": report.n_skipped,
        }
""")

FIRST = COMMON + textwrap.dedent("""
    class Kill(pl.Callback):
        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            if trainer.global_rank == 1 and trainer.current_epoch == 3 and batch_idx == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    class Spoil(pl.Callback):
        def on_train_batch_start(self, trainer, plan, batch, batch_idx):
            self.hook = None
            if trainer.global_rank == 1 and batch_idx == 2:
                weight = next(plan.module.parameters())
                self.hook = weight.register_hook(lambda gradient: gradient * float("nan"))

        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            if self.hook is not None:
                self.hook.remove()

    out, rank = Path(sys.argv[1]), os.environ["RANK"]
    whole = make()
    whole.train(**WORDS, **SEVERAL)
    skipping = make()
    few = WORDS | SEVERAL | {"max_epochs": 2, "early_stopping": False, "callbacks": [Spoil()]}
    skipping.train(**few, on_nan="skip_batch")
    stopping, error = make(), ""
    try:
        stopping.train(**few)
    except cellvae.errors.TrainingError as failure:
        error = str(failure)
    seen = {"whole": facts(whole), "skipping": facts(skipping), "error": error}
    (out / f"whole{rank}.json").write_text(json.dumps(seen))
    make().train(**WORDS, **SEVERAL, run_dir=out / "run", resume="auto", callbacks=[Kill()])
""")

SECOND = COMMON + textwrap.dedent("""
    out, rank = Path(sys.argv[1]), os.environ["RANK"]
    model = make()
    model.train(**WORDS, **SEVERAL, run_dir=out / "run", resume="auto")
    (out / f"again{rank}.json").write_text(json.dumps(facts(model)))
    if rank == "0":
        alone = make()
        alone.train(**WORDS, run_dir=out / "copy", resume="auto")
        (out / "alone.json").write_text(json.dumps(facts(alone)))
""")


def start_nodes(script: str, folder: Path) -> list[tuple[int, str]]:
    """Exit code and standard error of one process on each of two nodes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for node in range(2):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
        environment |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
            "RANK": str(node), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "NODE_RANK": str(node),
            "GROUP_RANK": str(node), "TORCHELASTIC_RUN_ID": "nodes",
        }  # fmt: skip
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", script, str(folder)],
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=folder,
            )  # fmt: skip
        )
    errors = [process.communicate(timeout=300)[1] for process in running]
    return [(process.returncode, text) for process, text in zip(running, errors, strict=True)]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_killed_node_ends_the_run_and_it_resumes_bit_by_bit(tmp_path: Path) -> None:
    (code, error), (killed, text) = start_nodes(FIRST, tmp_path)
    assert killed == -9, text[-3000:]
    assert code == 1
    assert "Another process of the run ended" in error, error[-3000:]
    assert "process 0 of 2" in error and "resume='auto'" in error
    first, second = (read(tmp_path / f"whole{rank}.json") for rank in (0, 1))
    assert first["whole"] == second["whole"]

    # What is not finite in one process is left out in both.
    assert first["skipping"]["weights"] == second["skipping"]["weights"]
    assert first["skipping"]["history"] == second["skipping"]["history"]
    assert first["skipping"]["skipped"] == second["skipping"]["skipped"] == 2
    for seen in (first, second):
        assert seen["error"].startswith("Training stopped:")

    states = tmp_path / "run" / "state"
    assert [path.name.split(".")[0] for path in sorted(states.iterdir())][-1] == "epoch=000003"
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    for code, text in start_nodes(SECOND, tmp_path):
        assert code == 0, text[-3000:]
    for rank in (0, 1):
        again = read(tmp_path / f"again{rank}.json")
        assert again.pop("resumed") == 3
        first["whole"].pop("resumed", None)
        assert again == first["whole"]

    # The same state, resumed by one process.
    alone = read(tmp_path / "alone.json")
    assert alone["resumed"] == 3
    for name, values in alone["history"].items():
        assert values[:3] == first["whole"]["history"][name][:3]
        assert values[3:] == pytest.approx(first["whole"]["history"][name][3:], rel=0.1)

"""The scripts for clusters in the documentation, run by stand-ins of their schedulers."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pytest
import yaml

import cellvae

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "docs" / "examples" / "cluster"
FAKE_SLURM = Path(__file__).with_name("fake_slurm.py")
FLAGS = ["--batch-key", "batch", "--max-epochs", "60", "--n-hidden", "8", "--batch-size", "16"]
FLAGS += ["--no-umap", "--accelerator", "cpu"]


def free_port() -> str:
    """A port that nobody listens to."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return str(server.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment whose PATH has the stand-ins, and `cellvae` and `torchrun` of this Python."""
    return make_environment(tmp_path)


@pytest.fixture(scope="module")
def expected(counts: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Latent of two processes that Lightning has started, without an interruption."""
    folder = tmp_path_factory.mktemp("plain")
    arguments = ["-m", "cellvae", "train", counts, "--out", "plain", *FLAGS, "--devices", "2"]
    done = run(sys.executable, *arguments, environment=make_environment(folder), cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    # The cells are one batch, which the second process computes and the first writes.
    latent = latent_of(folder / "plain")
    model = cellvae.load(folder / "plain" / "model", anndata.read_h5ad(counts))
    np.testing.assert_array_equal(latent, model.get_latent_representation())
    return latent


def make_environment(tmp_path: Path) -> dict[str, str]:
    """Environment whose PATH has the stand-ins, which are written to a folder."""
    programs = tmp_path / "bin"
    (tmp_path / "slurm").mkdir()
    programs.mkdir()
    python = shlex.quote(sys.executable)
    lines = {"cellvae": "-m cellvae", "torchrun": "-m torch.distributed.run"}
    lines |= dict.fromkeys(("sbatch", "srun", "squeue", "scontrol"), "")
    for name, arguments in lines.items():
        if arguments:
            text = f'#!/bin/bash\nexec {python} {arguments} "$@"\n'
        else:
            text = f"#!{sys.executable}\n{FAKE_SLURM.read_text()}"
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "SLURM", "TORCHELASTIC"))
        and name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
    return kept | {
        "PATH": f"{programs}{os.pathsep}{kept['PATH']}",
        "FAKE_SLURM": str(tmp_path / "slurm"), "FAKE_SLURM_PORT": free_port(),
        "OMP_NUM_THREADS": "1", "NO_COLOR": "1",
    }  # fmt: skip


def run(
    *arguments: object, environment: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [*map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def children_of(pid: int) -> list[int]:
    """Processes that a process has started, by the tables of Linux."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name of a program, in parentheses, may have spaces.
            parent = path.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                found.append(int(path.parent.name))
    return sorted(found)


def latent_of(out: Path) -> np.ndarray:
    """Latent representation that a job has written."""
    latent: np.ndarray = anndata.read_h5ad(out / "latent.h5ad").obsm["X_scVI"]
    return latent


@pytest.mark.slow
def test_a_script_checks_itself_and_starts_nothing(
    counts: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    script = TEMPLATES / "slurm.sh"
    done = run(
        "bash", script, counts, "--out", "run", *FLAGS, environment=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "80 cells x 12 features" in done.stdout
    assert "Job 1 to start" in done.stderr
    assert not (tmp_path / "run").exists()
    wrong = [counts, "--out", "run", "--batch-key", "donor"]
    done = run("bash", script, *wrong, environment=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "donor" in done.stderr
    assert "Job 1" not in done.stderr


@pytest.mark.trains
@pytest.mark.slow
def test_a_job_of_two_nodes_that_reaches_its_limit_resumes_bit_by_bit(
    counts: Path, tmp_path: Path, environment: dict[str, str], expected: np.ndarray
) -> None:
    arguments = ["--nodes=2", "--ntasks-per-node=1", TEMPLATES / "slurm.sh", counts]
    limited = environment | {"FAKE_SLURM_STATE": str(tmp_path / "run" / "state")}
    done = run("sbatch", *arguments, "--out", "run", *FLAGS, environment=limited, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    log = (tmp_path / "slurm" / "log").read_text().splitlines()
    assert log == ["1000 0 143", "1000 1 0"]
    assert "Resuming the interrupted run" in done.stderr
    np.testing.assert_array_equal(latent_of(tmp_path / "run"), expected)


@pytest.mark.trains
@pytest.mark.slow
def test_a_seed_has_a_folder_of_its_own_and_a_cancelled_job_is_not_requeued(
    counts: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    cancelled = environment | {
        "FAKE_SLURM_STATE": str(tmp_path / "runs" / "seed-3" / "state"),
        "FAKE_SLURM_LEFT": "3:12:00",
    }
    arguments = ["--array=3-3", TEMPLATES / "slurm-seeds.sh", counts, "runs", *FLAGS]
    done = run("sbatch", *arguments, "--max-epochs", "100000", environment=cancelled, cwd=tmp_path)
    assert done.returncode == 143, done.stderr[-3000:]
    assert (tmp_path / "slurm" / "log").read_text().splitlines() == ["1003 0 143"]
    job = json.loads((tmp_path / "runs" / "seed-3" / "job.json").read_text())
    assert job["options"]["seed"] == 3


@pytest.mark.trains
@pytest.mark.slow
def test_torchrun_on_two_nodes_starts_again_when_a_process_dies(
    counts: Path, tmp_path: Path, environment: dict[str, str], expected: np.ndarray
) -> None:
    own = environment | {"NODES": "2", "DEVICES": "1", "FIRST": f"localhost:{free_port()}"}
    command = ["bash", str(TEMPLATES / "torchrun.sh"), str(counts), "--out", "run", *FLAGS]
    nodes = [
        subprocess.Popen(command, env=own, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    deadline = time.monotonic() + 120
    while not any((tmp_path / "run" / "state").glob("*.state")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (torchrun,) = children_of(nodes[1].pid)
    os.kill(children_of(torchrun)[0], signal.SIGKILL)
    texts = [node.communicate(timeout=400)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], texts
    assert any("Resuming the interrupted run" in text for text in texts)
    np.testing.assert_array_equal(latent_of(tmp_path / "run"), expected)


@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_to_one_process_ends_all_after_the_same_batch(
    number: int, code: int, counts: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    arguments = [*FLAGS, "--max-epochs", "100000", "--devices", "2"]
    command = [sys.executable, "-m", "cellvae", "train", str(counts), "--out", "run", *arguments]
    started = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not any((tmp_path / "run" / "state").glob("*.state")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(children_of(started.pid)[0], number)
    text = started.communicate(timeout=300)[1]
    assert started.returncode == code, text[-3000:]
    assert any((tmp_path / "run" / "state").glob("*.state"))
    assert (tmp_path / "run" / "model").exists() == (code == 0)
    if code == 0:
        assert text.count("Once more aborts it") == 1
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        assert report["status"] == "interrupted"


@pytest.mark.slow
def test_the_job_of_kubernetes_has_the_command_of_this_version(
    counts: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    job = yaml.safe_load((TEMPLATES / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "OnFailure"
    (container,) = pod["containers"]
    arguments = [*container["command"], *container["args"], "--dry-run"]
    here = [str(counts) if word.endswith("h5ad") else word for word in arguments]
    done = run(*here, environment=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'/data/run'" in done.stdout

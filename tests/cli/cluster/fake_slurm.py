"""Stand-in for sbatch, srun, squeue and scontrol on one computer, by the name it is called with.

Knows the options that the scripts in the documentation use, and refuses others. The time limit of
a job is reached, once, when the folder `FAKE_SLURM_STATE` has a file. What the programs tell each
other is in files of the folder `FAKE_SLURM`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MEMORY = Path(os.environ["FAKE_SLURM"])
OPTIONS = {
    "job-name", "nodes", "ntasks", "ntasks-per-node", "gpus", "gpus-per-node", "cpus-per-task",
    "time", "signal", "requeue", "open-mode", "output", "array", "test-only", "kill-on-bad-exit",
    "noheader", "jobs", "format",
}  # fmt: skip
FLAGS = ("requeue", "test-only", "noheader")


def main() -> int:
    """Do what the program does whose name this has; return its exit code."""
    program, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if program == "scontrol":
        (MEMORY / "requeue").write_text(arguments[1])
        return 0 if arguments[0] == "requeue" else 1
    options, rest = parse_options(arguments)
    if program == "squeue":
        print((MEMORY / "left").read_text())
        return 0
    return {"sbatch": sbatch, "srun": srun}[program](options, rest)


def parse_options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options before the first other word, and that word with all after it."""
    options = {}
    while arguments and arguments[0].startswith("--"):
        name, _, value = arguments.pop(0)[2:].partition("=")
        if name not in OPTIONS:
            sys.exit(f"unrecognized option '--{name}'")
        if not value and name not in FLAGS:
            value = arguments.pop(0)
        options[name] = value
    return options, arguments


def sbatch(options: dict[str, str], arguments: list[str]) -> int:
    """Run a job, or each task of an array, until it does not put itself into the queue again."""
    script = Path(arguments[0])
    lines = [line.split() for line in script.read_text().splitlines()]
    directives = [line[1] for line in lines if line and line[0] == "#SBATCH"]
    options = {**parse_options(directives)[0], **options}
    assert options["signal"] == "TERM@120", options["signal"]
    if "test-only" in options:
        print("sbatch: Job 1 to start", file=sys.stderr)
        return 0
    first, _, last = options.get("array", "").partition("-")
    codes = []
    for task in range(int(first), int(last) + 1) if first else [None]:
        codes.append(run_job(options, script, arguments[1:], task))
    return max(codes)


def run_job(options: dict[str, str], script: Path, arguments: list[str], task: int | None) -> int:
    """Run a job, again as long as it is requeued; return its last exit code."""
    nodes, per_node = int(options.get("nodes", "1")), int(options.get("ntasks-per-node", "1"))
    environment = {
        **os.environ,
        "SLURM_JOB_ID": str(1000 + (task or 0)), "SLURM_JOB_NAME": options["job-name"],
        "SLURM_NNODES": str(nodes), "SLURM_NTASKS_PER_NODE": str(per_node),
        "SLURM_NTASKS": str(nodes * per_node), "SLURM_NODELIST": "localhost",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
        "MASTER_PORT": os.environ["FAKE_SLURM_PORT"],
    }  # fmt: skip
    if task is not None:
        environment |= {"SLURM_ARRAY_JOB_ID": "1000", "SLURM_ARRAY_TASK_ID": str(task)}
    # Slurm runs a copy of the script.
    copy = MEMORY / "slurm_script"
    shutil.copy(script, copy)
    for restart in range(5):
        environment["SLURM_RESTART_COUNT"] = str(restart)
        for name in ("requeue", "tasks"):
            (MEMORY / name).unlink(missing_ok=True)
        (MEMORY / "left").write_text("3:58:00")
        job = subprocess.Popen(["bash", str(copy), *arguments], env=environment)
        if restart == 0 and os.environ.get("FAKE_SLURM_STATE"):
            reach_time_limit(job, Path(os.environ["FAKE_SLURM_STATE"]))
        code = job.wait()
        with (MEMORY / "log").open("a") as log:
            log.write(f"{environment['SLURM_JOB_ID']} {restart} {code}\n")
        if not (MEMORY / "requeue").exists():
            return code
    return 1


def reach_time_limit(job: subprocess.Popen[bytes], folder: Path) -> None:
    """Send SIGTERM to all tasks of a job when a folder has a file."""
    while job.poll() is None and not (folder.exists() and any(folder.glob("*.state"))):
        time.sleep(0.02)
    if job.poll() is None:
        (MEMORY / "left").write_text(os.environ.get("FAKE_SLURM_LEFT", "1:57"))
        for pid in (MEMORY / "tasks").read_text().split():
            os.kill(int(pid), signal.SIGTERM)


def srun(options: dict[str, str], arguments: list[str]) -> int:
    """Start the tasks of a step, and return the highest exit code."""
    n = int(options.get("ntasks", os.environ["SLURM_NTASKS"]))
    per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
    tasks = []
    for rank in range(n):
        place = {
            "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(n), "SLURM_PROCID": str(rank),
            "SLURM_NODEID": str(rank // per_node), "SLURM_LOCALID": str(rank % per_node),
        }  # fmt: skip
        tasks.append(subprocess.Popen(arguments, env={**os.environ, **place}))
    (MEMORY / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
    return max(code if code >= 0 else 128 - code for code in (task.wait() for task in tasks))


if __name__ == "__main__":
    sys.exit(main())

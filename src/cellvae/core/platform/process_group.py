"""Processes of a run that exchange values, whoever has started them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor

from cellvae.core.platform.launcher import find_launcher
from cellvae.errors import InvalidOptionError, ProcessError

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another one that is still there."""


@final
class ProcessGroup:
    """All processes of a run, which exchange values over the network.

    They take the same steps. One that fails tells the others in its next exchange, so that none of
    them waits for it; the connections to a process that has ended are closed, which ends the wait
    of the others too.

    Attributes
    ----------
    rank
        Number of this process.
    size
        Number of processes.
    """

    def __init__(self) -> None:
        self.group = dist.new_group(backend="gloo", timeout=TIMEOUT)
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.shared_error: BaseException | None = None  # the error that all processes know

    def exchange(
        self, what: str, value: Any = None, error: BaseException | None = None
    ) -> list[Any]:
        """Values of all processes, by rank.

        Parameters
        ----------
        what
            What is exchanged; the same in all processes.
        value
            Value of this process; anything that can be pickled.
        error
            Error of this process, which is raised in it; None if there is none.

        Raises
        ------
        ProcessError
            If another process has an error, has ended, or exchanges something else.
        """
        text = None if error is None else f"{type(error).__name__}: {error}".rstrip(": ")
        answers: list[Any] = [None] * self.size
        with self.connection():
            dist.all_gather_object(answers, (what, value, text), group=self.group)
        failed = [rank for rank, (_, _, text) in enumerate(answers) if text is not None]
        if not failed and all(other == what for other, _, _ in answers):
            return [answer for _, answer, _ in answers]
        if error is None:
            error = ProcessError(
                f"Process {failed[0]} of {self.size} failed: {answers[failed[0]][2]}"
                if failed
                else "Expected the same steps in all processes; they are at: "
                + ", ".join(other for other, _, _ in answers)
                + ". Ask the same questions in all of them, in the same order."
            )
        self.shared_error = error
        raise error

    def broadcast(self, values: Tensor, source: int) -> None:
        """Copy bytes of one process, [bytes], to all others."""
        with self.connection():
            dist.broadcast(values, src=source, group=self.group)

    def send(self, values: Tensor) -> None:
        """Send bytes to the first process."""
        with self.connection():
            dist.send(values, dst=0, group=self.group)

    def receive(self, values: Tensor, source: int) -> None:
        """Receive bytes, in the first process."""
        with self.connection():
            dist.recv(values, src=source, group=self.group)

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Context of an exchange; after an error in it the processes are no longer connected.

        Raises
        ------
        ProcessError
            In place of the errors of gloo.
        """
        if self.group is None:
            raise ProcessError("The processes of the run are no longer connected.")
        try:
            yield
        except BaseException as error:
            self.close()
            self.shared_error = error
            if not isinstance(error, RuntimeError):
                raise
            self.shared_error = ProcessError(
                f"Process {self.rank} of {self.size} got no answer: another process has ended, or "
                "cannot be reached. Its own output says why. All processes must ask the same "
                "questions."
            )
            raise self.shared_error from error

    @contextmanager
    def step(self, *, agree: bool) -> Iterator[None]:
        """Context of something that all processes do; a failure in one is raised in all.

        Parameters
        ----------
        agree
            Whether all wait at its end until it has succeeded in all of them.
        """
        try:
            yield
        except BaseException as error:
            if error is not self.shared_error and self.group is not None:
                self.exchange("an error", error=error)
            raise
        else:
            if agree:
                self.exchange("the end")

    def close(self) -> None:
        """Close the connections."""
        if self.group is not None:
            dist.destroy_process_group(self.group)
        self.group = None


def join_processes() -> ProcessGroup | None:
    """Connect this process with the others of its run; None if it is the only one.

    All processes must call it. Those of a training run are connected already.

    Raises
    ------
    InvalidOptionError
        If SLURM has started processes on several nodes, and there is no address of the first.
    """
    if not dist.is_available():
        return None
    if not dist.is_initialized():
        launcher = find_launcher()
        if launcher is None or launcher.n_processes == 1:
            return None
        connect(launcher.name)
    return ProcessGroup() if dist.get_world_size() > 1 else None


def connect(launcher: str) -> None:
    """Make the group of all processes that torchrun or SLURM has started."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if launcher == "torchrun":
        dist.init_process_group(backend)
    else:
        dist.init_process_group(
            backend,
            init_method=f"tcp://{slurm_address()}",
            rank=int(os.environ["SLURM_PROCID"]),
            world_size=int(os.environ["SLURM_NTASKS"]),
        )
    # It stays, since torchrun's store cannot be used for a second one.
    atexit.register(disconnect)


def disconnect() -> None:
    """Destroy the group of all processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def slurm_address() -> str:
    """Host and port of the first of the processes that SLURM has started.

    Raises
    ------
    InvalidOptionError
        If they are on several nodes, and there is no address of the first.
    """
    host = os.environ.get("MASTER_ADDR")
    if host is None and os.environ.get("SLURM_NNODES", "1") != "1":
        raise InvalidOptionError(
            "Expected MASTER_ADDR, the name of the first node, in the environment of processes on "
            "several nodes; there is none. Set it in the script of the job: export "
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1).'
        )
    job = os.environ.get("SLURM_JOB_ID", "0")
    port = os.environ.get("MASTER_PORT") or str(15000 + int(job[-4:]))
    return f"{host or '127.0.0.1'}:{port}"

"""Context in which several processes or devices share the cells of each question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from cellvae.core.platform.process_group import ProcessGroup, join_processes
from cellvae.core.seeds import draw_seed, isolated_rng
from cellvae.errors import InvalidOptionError


@dataclass(frozen=True)
class Sharing:
    """Who computes the results of the cells."""

    processes: ProcessGroup | None
    """The processes of the run; None for this process alone."""
    devices: tuple[torch.device, ...]
    """Devices of this process, one thread each; none for the device of the model."""


SHARING: ContextVar[Sharing | None] = ContextVar("SHARING", default=None)
"""Sharing of the present :func:`share_cells`."""


@contextmanager
def share_cells(devices: int | Sequence[int | str] | None = None) -> Iterator[None]:
    """Context in which several processes or GPUs share the cells of each question.

    Each computes a stretch of the cells, and all processes have the whole result, in the requested
    order. From files each reads its own stretch. A result that is written to a file (`out`) is
    written by the first process, and no process holds all of it.

    In the context, samples do not depend on the number of processes or devices: each batch of cells
    has random numbers of its own, in one process too. All processes must enter it, and ask the same
    questions in the same order; an error in one is raised in all. Questions that are not about
    each cell, as :func:`differential_expression`, are answered by each process for itself, with the
    same result.

    Parameters
    ----------
    devices
        None for the processes of the run: those that trained the model
        (`train(devices=2)`), or that torchrun or SLURM has started; each on the device of its
        model. Otherwise GPUs of this process, with a copy of the network on each: their number, -1
        for all, or a list of their indices or names.

    Raises
    ------
    InvalidOptionError
        If there are fewer GPUs, or the context is inside another one.
    ProcessError
        In the other processes, if one fails.

    Examples
    --------
    >>> with cellvae.inference.share_cells():  # doctest: +SKIP
    ...     latent = model.get_latent_representation()
    """
    if SHARING.get() is not None:
        raise InvalidOptionError("Expected one share_cells() at a time; got one inside another.")
    chosen = () if devices is None else choose_devices(devices)
    processes = join_processes() if devices is None else None
    with open_sharing(Sharing(processes, chosen)):
        yield


@contextmanager
def open_sharing(sharing: Sharing) -> Iterator[None]:
    """Context in which cells are shared; without processes and devices samples alone differ."""
    processes = sharing.processes
    with ExitStack() as stack:
        seed = draw_seed()
        if processes is not None:
            stack.callback(processes.close)
            seed = processes.exchange("the start", seed)[0]
            stack.enter_context(processes.step(agree=True))
        stack.enter_context(isolated_rng(seed, "shared cells"))
        token = SHARING.set(sharing)
        try:
            yield
        finally:
            SHARING.reset(token)


def share_between_processes(shared: bool) -> AbstractContextManager[None]:
    """Context as of :func:`share_cells`, with the same samples if this process is alone in it."""
    return share_cells() if shared else open_sharing(Sharing(None, ()))


def choose_devices(devices: int | Sequence[int | str]) -> tuple[torch.device, ...]:
    """Devices that were asked for.

    Raises
    ------
    InvalidOptionError
        If there are fewer GPUs.
    """
    n_gpus = torch.cuda.device_count()
    if isinstance(devices, int):
        wanted: Sequence[int | str] = range(n_gpus if devices == -1 else devices)
    else:
        wanted = [devices] if isinstance(devices, str) else devices
    chosen = [
        torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        for device in wanted
    ]
    if any(device.type == "cuda" and (device.index or 0) >= n_gpus for device in chosen):
        raise InvalidOptionError(
            f"Expected devices of this computer, which has {n_gpus} GPUs; got {devices!r}. Leave "
            "devices out to share cells between the processes of a run."
        )
    if not chosen:
        raise InvalidOptionError(f"Expected at least one device; got devices={devices!r}.")
    return tuple(
        torch.device("cuda", device.index or 0) if device.type == "cuda" else device
        for device in chosen
    )


@contextmanager
def in_all_processes() -> Iterator[bool]:
    """Context that ends in all processes together; its value is whether this is the first one."""
    sharing = SHARING.get()
    processes = None if sharing is None else sharing.processes
    if processes is None:
        yield True
        return
    with processes.step(agree=True):
        yield processes.rank == 0

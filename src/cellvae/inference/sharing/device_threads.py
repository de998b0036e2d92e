"""Results that threads of one process compute, each on a device with a copy of the network."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from queue import Queue
from threading import Event, Lock, Thread
from typing import Any

import torch
from torch import Tensor

from cellvae.core.eval_mode import eval_mode
from cellvae.core.seeds import derive_seed
from cellvae.data.batches.read_ahead import keep_rows
from cellvae.data.storage.row_wrappers import ToDevice
from cellvae.inference.cell_pass import CellPass
from cellvae.inference.protocols import EncoderModel

MAX_WAITING = 2
"""Batches of results that wait for each device."""


class DeviceThreads:
    """Threads that compute the results of a pass, each on a device.

    Parameters
    ----------
    model
        Trained model.
    values_of
        Function of a network and a batch.
    devices
        Devices; one that is there twice is used by one thread at a time.
    seed
        Seed of the pass.
    """

    def __init__(
        self,
        model: EncoderModel,
        values_of: Callable[[Any, Any], Mapping[str, Tensor]],
        devices: tuple[torch.device, ...],
        seed: int,
    ) -> None:
        self.model = model
        self.values_of = values_of
        self.devices = devices
        self.seed = seed
        self.stopped = Event()
        self.found: Queue[Any] = Queue(MAX_WAITING * len(devices))
        # Each device has one generator.
        self.locks: defaultdict[torch.device, Lock] = defaultdict(Lock)

    def run(
        self, cell_pass: CellPass, store: Callable[[slice, Mapping[str, Tensor]], None]
    ) -> None:
        """Compute all results, and store them in this thread.

        Raises
        ------
        BaseException
            The error of a thread.
        """
        threads = []
        for number, device in enumerate(self.devices):
            module = copy.deepcopy(self.model.module).to(device)
            own = cell_pass.stretch(number, len(self.devices))
            threads.append(Thread(target=self.compute, args=(module, device, own), daemon=True))
        for thread in threads:
            thread.start()
        try:
            n_left = len(threads)
            while n_left:
                found = self.found.get()
                if found is None:
                    n_left -= 1
                elif isinstance(found, BaseException):
                    raise found
                else:
                    store(*found)
        finally:
            self.stopped.set()
            while any(thread.is_alive() for thread in threads):
                while not self.found.empty():
                    self.found.get()
                for thread in threads:
                    thread.join(0.01)

    def compute(self, module: Any, device: torch.device, cell_pass: CellPass) -> None:
        """Compute the results of a stretch of the cells; called in a thread."""
        placed = cell_pass._replace(device=device)
        if device.type == "cuda":
            placed = placed._replace(place=partial(ToDevice, device=device))
        elif self.model.device.type != device.type:
            placed = placed._replace(place=keep_rows)
        try:
            with eval_mode(module), torch.inference_mode():
                for positions, batch in placed.iter_batches():
                    with self.locks[device]:
                        seed_device(device, derive_seed(self.seed, "cell", positions.start))
                        values = self.values_of(module, batch)
                        found = {name: x.cpu() for name, x in values.items()}
                    self.found.put((positions, found))
                    if self.stopped.is_set():
                        return
        except BaseException as error:
            self.found.put(error)
        else:
            self.found.put(None)


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generator of a device, and of no other."""
    generator = (
        torch.cuda.default_generators[device.index]
        if device.type == "cuda"
        else torch.default_generator
    )
    generator.manual_seed(seed)


def compute_on_devices(
    model: EncoderModel,
    cell_pass: CellPass,
    values_of: Callable[[Any, Any], Mapping[str, Tensor]],
    store: Callable[[slice, Mapping[str, Tensor]], None],
    devices: tuple[torch.device, ...],
    seed: int,
) -> None:
    """Compute the results of a pass on several devices; parameters as of `compute_batches`."""
    DeviceThreads(model, values_of, devices, seed).run(cell_pass, store)

"""Results of batches of cells, computed here, by several processes, or on several devices."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cellvae.core.seeds import derive_seed, draw_seed
from cellvae.errors import InvalidOptionError
from cellvae.inference.cell_pass import CellPass, inference_mode
from cellvae.inference.protocols import EncoderModel
from cellvae.inference.sharing.device_threads import compute_on_devices
from cellvae.inference.sharing.process_rounds import exchange_results
from cellvae.inference.sharing.share_cells import SHARING

BatchValues: TypeAlias = "Callable[[Any, Any], Mapping[str, Tensor]]"
"""Function of a network and of a batch of cells: values by name, each [cells, ...]."""
Store: TypeAlias = "Callable[[slice, Mapping[str, Tensor]], None]"
"""Takes the values of the cells at some positions of a pass, which come in any order."""


def compute_batches(
    model: EncoderModel,
    cell_pass: CellPass,
    values_of: BatchValues,
    store: Store,
    *,
    first_only: bool = False,
) -> None:
    """Compute something for each cell of a pass, batch by batch, in inference mode.

    Within :func:`share_cells` each process or device computes a stretch of the batches.

    Parameters
    ----------
    model
        Trained model.
    cell_pass
        Cells.
    values_of
        Function of a batch, which uses the network that it is given: a copy on another device.
    store
        Is called with the values of all batches; several batches may come together.
    first_only
        Whether it is called in the first process only.

    Raises
    ------
    ProcessError
        If another process failed.
    """
    sharing = SHARING.get()
    if sharing is None:
        with inference_mode(model):
            for positions, batch in cell_pass.iter_batches():
                store(positions, values_of(model.module, batch))
        return
    seed, processes = draw_seed(), sharing.processes
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), inference_mode(model):
        if sharing.devices:
            compute_on_devices(model, cell_pass, values_of, store, sharing.devices, seed)
        elif processes is None:
            for positions, values in iter_results(model, cell_pass, values_of, seed):
                store(positions, values)
        else:
            with processes.step(agree=False):
                facts = processes.exchange(
                    "a question", (seed, facts_of(model, cell_pass, values_of))
                )
                check_same([other for _, other in facts])
                own = cell_pass.stretch(processes.rank, processes.size)
                results = iter_results(model, own, values_of, facts[0][0])
                exchange_results(processes, results, store, first_only=first_only)


def iter_results(
    model: EncoderModel, cell_pass: CellPass, values_of: BatchValues, seed: int
) -> Iterator[tuple[slice, Mapping[str, Tensor]]]:
    """Results of each batch of a pass, whose random numbers depend on its position alone."""
    for positions, batch in cell_pass.iter_batches():
        torch.manual_seed(derive_seed(seed, "cell", positions.start))
        yield positions, values_of(model.module, batch)


def facts_of(model: EncoderModel, cell_pass: CellPass, values_of: BatchValues) -> dict[str, Any]:
    """What the processes must have in common to share a question."""
    state = model.module.state_dict().values()
    return {
        "question": name_question(values_of),
        "number of cells": len(cell_pass.cells),
        "choice of cells": zlib.crc32(cell_pass.cells.numpy().tobytes()),
        "batch_size": cell_pass.batch_size,
        "sum of weights": sum(float(values.double().abs().sum()) for values in state),
    }


def name_question(values_of: BatchValues) -> str:
    """Name of the function, at module level, that computes or defines what is computed."""
    function: Any = values_of.func if isinstance(values_of, partial) else values_of
    name: str = function.__qualname__.partition(".")[0]
    return name


def check_same(facts: list[dict[str, Any]]) -> None:
    """Check that all processes ask the same question.

    Raises
    ------
    InvalidOptionError
        In all of them, if they do not.
    """
    for rank, other in enumerate(facts):
        for name, value in facts[0].items():
            # Devices of different kinds add in different orders.
            close = isinstance(value, float) and math.isclose(value, other[name], rel_tol=1e-6)
            if str(value) != str(other[name]) and not close:
                raise InvalidOptionError(
                    f"Expected the same {name} in all processes; got {value} in the first and "
                    f"{other[name]} in process {rank}. Within share_cells() all processes ask the "
                    "same questions of the same model, in the same order."
                )

"""One training run of a model: seed, split and state before it, results stored after it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellvae.core.files.output_files import check_output_folder
from cellvae.core.platform.launcher import find_launcher, process_rank
from cellvae.core.platform.new_process import call_in_new_process, can_pickle
from cellvae.core.seeds import draw_seed
from cellvae.data import Split, split_cells
from cellvae.data.setup.fields.modality_cells import count_modality_cells, measured_modalities
from cellvae.errors import DataMismatchError, InvalidOptionError, ResumeError, TrainingError
from cellvae.estimator.model_io import ModelFolder
from cellvae.estimator.resume import (
    describe_changed_cells,
    read_cell_values_of,
    run_identity,
    state_folder,
    state_to_resume,
)
from cellvae.estimator.tracking import log_artifacts
from cellvae.settings import settings
from cellvae.train.options.process_count import (
    check_started_processes,
    count_processes,
    needs_new_processes,
)
from cellvae.train.records.history import History

if TYPE_CHECKING:
    from cellvae.data import Registration
    from cellvae.estimator.base_model import BaseModel
    from cellvae.train.options.train_kwargs import ParsedTrainKwargs
    from cellvae.train.options.train_options import TrainOptions
    from cellvae.train.resume.training_state import TrainingState

SEED_KEY = "CELLVAE_RUN_SEED"
"""Environment variable by which the processes of one run share a random seed."""


STATE_OF_TRAINING = (
    "history",
    "split",
    "is_trained",
    "carryover",
    "registration",
    "training_report",
)
"""Attributes of a model that a run sets."""


def run_training(model: BaseModel, parsed: ParsedTrainKwargs) -> None:
    """Train a model, and store the results of the run in it, however the run ended."""
    options = parsed.options
    strategy = options.trainer.get("strategy", "auto")
    if needs_new_processes(options.devices, options.num_nodes, strategy):
        run_in_new_processes(model, parsed)
    else:
        run_in_this_process(model, parsed)


def run_in_new_processes(model: BaseModel, parsed: ParsedTrainKwargs) -> None:
    """Train a copy of a model in new processes, and take over the results of the run."""
    trainer = {k: v for k, v in parsed.options.trainer.items() if k != "strategy"}
    copied = replace(parsed, options=replace(parsed.options, trainer=trainer))
    result = call_in_new_process(train_copy, model, copied, draw_seed(), dict(settings.values))
    model.module.to(result["device"]).load_state_dict(result["weights"])
    model.module.eval()
    for name, value in result["attributes"].items():
        setattr(model, name, value)
    for callback, attributes in zip(parsed.callbacks, result["callbacks"], strict=True):
        vars(callback).update(attributes)
    if result["error"] is not None:
        raise result["error"]


def train_copy(
    model: BaseModel, parsed: ParsedTrainKwargs, random_seed: int, values: dict[str, object]
) -> dict[str, Any]:
    """Train a model in a process of several; what the run has set, and its error, if any.

    Parameters
    ----------
    model, parsed
        As of :func:`run_training`.
    random_seed
        Seed of torch's generator, from which a run without a seed draws one.
    values
        Settings of the process that the model comes from.
    """
    settings.values.update(values)
    torch.manual_seed(random_seed)
    error: BaseException | None = None
    try:
        run_in_this_process(model, parsed)
    except (Exception, KeyboardInterrupt, SystemExit) as failure:
        error = failure if can_pickle(failure) else TrainingError(str(failure))
    return {
        "weights": {name: value.cpu() for name, value in model.module.state_dict().items()},
        "device": str(model.device),
        "attributes": {name: getattr(model, name) for name in STATE_OF_TRAINING},
        "callbacks": [
            {name: value for name, value in vars(callback).items() if can_pickle(value)}
            for callback in parsed.callbacks
        ],
        "error": error,
    }


def run_in_this_process(model: BaseModel, parsed: ParsedTrainKwargs) -> None:
    """Train a model in this process, one of several or alone."""
    from cellvae.train.run.fit import fit
    from cellvae.train.run.run_start import RunStart

    if model.rows is None:
        raise DataMismatchError(
            "The model was loaded without cells. Load it with adata=... to train it."
        )
    check_can_learn(model, parsed.options)
    check_started_processes(parsed.options.devices, parsed.options.num_nodes)
    rows = model.rows_of_model()
    options = parsed.options
    run_dir = None if options.run_dir is None else check_output_folder(options.run_dir, "run_dir")
    state_dir = state_folder(model, parsed, run_dir)
    state = state_to_resume(options, state_dir)
    from_scratch = options.reset and state is None
    carryover = None if from_scratch or state is not None else model.carryover
    seed = seed_for(options, state, carryover)
    split = split_for(model, options, len(rows), seed, state)
    identity = run_identity(model, split)
    cell_values = {} if state is None and state_dir is None else read_cell_values_of(model, rows)
    old_weights = None
    if from_scratch:
        old_weights = {k: v.detach().clone() for k, v in model.module.state_dict().items()}
        reinitialize(model, rows, seed)
    outcome = fit(
        model.module,
        rows,
        split,
        options,
        seed=seed,
        callbacks=(*model.required_callbacks(), *parsed.callbacks),
        start=RunStart(
            history=History() if from_scratch else model.history,
            carryover=carryover,
            state=state,
            identity=identity,
            cell_values=cell_values,
            differing=describe_changed_cells(model, state, identity, cell_values),
            state_dir=state_dir,
            run_dir=run_dir,
        ),
        files=ModelFolder(model, split, len(rows)),
        labels=model.semisupervised_labels(),
    )
    if outcome.keep_weights:
        model.history, model.split, model.is_trained = outcome.history, split, True
        model.carryover = outcome.carryover
        model.registration = registration_of_cells(model, len(rows))
    elif old_weights is not None:
        model.module.load_state_dict(old_weights)
    model.training_report = outcome.report
    if outcome.keep_weights and process_rank() == 0:
        log_artifacts(model, options.trainer.get("logger"))
    if outcome.error is not None:
        raise outcome.error


def registration_of_cells(model: BaseModel, n_cells: int) -> Registration:
    """Registration of a model with the counts of its training cells, in all and by modality."""
    known, modality_cells = model.registration, {}
    if known.modality_cells and model.adata is not None:
        fields = model.fields(known.keys)
        modality_cells = count_modality_cells(measured_modalities(model.adata, fields))
    return replace(known, n_cells=n_cells, modality_cells=modality_cells)


def check_can_learn(model: BaseModel, options: TrainOptions) -> None:
    """Refuse to train a query that has no trainable weights, or would lose its reference.

    Raises
    ------
    InvalidOptionError
        If so.
    """
    if not model.module.frozen_weights:
        return
    if not any(p.requires_grad for p in model.module.parameters()):
        raise InvalidOptionError(
            "There is nothing to train: the cells have no category that the reference does not "
            "know, and its weights are frozen. Use the model as it is, or give unfrozen=True to "
            "load_query_data."
        )
    if options.reset:
        raise InvalidOptionError(
            "reset=True would discard the reference, whose weights are frozen in this model. Call "
            "load_query_data again."
        )


def seed_for(options: TrainOptions, state: TrainingState | None, carryover: Any) -> int:
    """Seed of a run: the requested one, that of the previous or resumed run, or a random one.

    Raises
    ------
    ResumeError
        If a resumed run is given another seed than it had.
    """
    requested = options.seed if options.seed is not None else settings.seed
    if state is not None:
        if options.seed is not None and options.seed != state.seed:
            raise ResumeError(
                f"Expected the seed of the run to be resumed, {state.seed}; got {options.seed}."
            )
        return state.seed
    if requested is not None:
        return requested
    if carryover is not None:
        return int(carryover.seed)
    launcher = find_launcher()
    if launcher is not None and count_processes(options.devices, options.num_nodes) > 1:
        # Its processes agree before they can talk to each other.
        return launcher.seed
    if os.environ.get("LOCAL_RANK", "0") != "0" and SEED_KEY in os.environ:
        return int(os.environ[SEED_KEY])
    seed = draw_seed()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shared = [seed]
        torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]
    if options.devices not in ("auto", 1, "1"):
        os.environ[SEED_KEY] = str(seed)
    return seed


def split_for(
    model: BaseModel, options: TrainOptions, n_cells: int, seed: int, state: TrainingState | None
) -> Split:
    """Split of a run: that of the previous run, unless another is requested or the cells differ.

    Raises
    ------
    ResumeError
        If another split is requested for a resumed run.
    """
    requested = options.split
    another = requested.external_indexing is not None or requested != type(requested)()
    if state is not None and not another:
        return state.split
    known = model.split if state is None and not options.reset else None
    if known is not None and not another and n_cells == model.registration.n_cells:
        return known
    split = split_cells(
        n_cells,
        train_size=requested.train_size,
        validation_size=requested.validation_size,
        shuffle=requested.shuffle_set_split,
        seed=seed,
        batch_size=options.loader.batch_size,
        drop_last=options.loader.drop_last,
        external_indexing=requested.external_indexing,
        adata=model.adata,
    )
    if state is not None and any(
        not np.array_equal(getattr(split, part), getattr(state.split, part))
        for part in ("train", "validation", "test")
    ):
        raise ResumeError(
            "Expected the split of the run to be resumed; another one was requested. Leave out "
            "train_size, validation_size, shuffle_set_split and external_indexing."
        )
    return split


def reinitialize(model: BaseModel, rows: Any, seed: int) -> None:
    """Give the network new initial weights, drawn with the seed."""
    from cellvae.core.seeds import isolated_rng

    device = model.device
    with isolated_rng(seed, "weights"):
        fresh = model.build(model.registration, model.config)
    model.init_from_data(fresh, rows)
    model.module.load_state_dict(fresh.to(device).state_dict())


def search_inputs(model: BaseModel, options: TrainOptions) -> tuple[Any, np.ndarray, int]:
    """Rows, indices of training cells and seed of a search: those that `train` would use."""
    if model.rows is None:
        raise DataMismatchError("The model was loaded without cells. Load it with adata=... first.")
    rows = model.rows_of_model()
    seed = seed_for(options, None, model.carryover)
    return rows, split_for(model, options, len(rows), seed, None).train, seed

"""What the processes of a run must have in common, compared before its first epoch."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from cellvae.errors import TrainingError

if TYPE_CHECKING:
    from cellvae.train.loop.training_plan import TrainingPlan


class ProcessAgreement(pl.Callback):
    """Ends a run in which processes have different cells, seeds or states to resume from.

    Each process reads data and state by itself. If they differed, some cells would be trained on
    twice and others never, or one process would wait for another that has nothing left to do.

    Raises
    ------
    TrainingError
        In all processes, if one differs from the first.
    """

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Compare the facts of this process with those of the first."""
        own = facts_of_run(trainer, pl_module)
        first: dict[str, int] = trainer.strategy.broadcast(own, src=0)
        differing = [name for name in own if own[name] != first[name]]
        if not trainer.strategy.reduce_boolean_decision(bool(differing), all=False):
            return
        if not differing:
            raise TrainingError(
                "Expected the same run in all processes; another one has other cells, another seed "
                "or another state to resume from. Its own error says which."
            )
        name = differing[0]
        raise TrainingError(
            f"Expected the same {name} in all processes of the run; got {first[name]} in the first "
            f"and {own[name]} in process {trainer.global_rank}. Give all the same cells and seed, "
            "and a run_dir that all nodes can read."
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Take the buffers of the first process, which differ where they are of its own cells.

        All processes then have the model that the first one saves.
        """
        own = [*pl_module.module.buffers()]
        first = trainer.strategy.broadcast([values.cpu() for values in own], src=0)
        for values, of_first in zip(own, first, strict=True):
            values.copy_(of_first)


def facts_of_run(trainer: pl.Trainer, plan: TrainingPlan) -> dict[str, int]:
    """Numbers by which processes can tell that they have the same run."""
    facts = {
        "seed": plan.seed,
        "number of epochs done": plan.first_epoch + trainer.current_epoch,
        "number of parameters": sum(p.numel() for p in plan.module.parameters()),
    }
    if plan.split is not None:
        facts["number of cells"] = 0 if plan.rows is None else len(plan.rows)
        facts["checksum of the split"] = zlib.crc32(
            plan.split.validation.tobytes(), zlib.crc32(plan.split.train.tobytes())
        )
    return facts

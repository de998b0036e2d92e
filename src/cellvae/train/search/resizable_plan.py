"""A plan whose batches can be cut anew, for Lightning's search of a batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from cellvae.data.batches.blocks import EpochBlocks
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.kl_warmup import KLWarmup

Cut: TypeAlias = Callable[[int], tuple[EpochBlocks[Any], EpochBlocks[Any] | None, KLWarmup]]
"""Function from a batch size to blocks for training and validation, and the KL warm-up."""


class ResizableTrainingPlan(TrainingPlan):
    """Plan that gives Lightning its cells, and cuts them anew when its `batch_size` is set."""

    make_blocks: Cut | None = None
    size: int = 0

    def set_block_maker(self, make_blocks: Cut) -> None:
        """Set what makes the blocks of another batch size."""
        self.make_blocks = make_blocks

    @property
    def batch_size(self) -> int:
        """Cells of a batch."""
        return self.size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.size = size
        if self.make_blocks is not None:
            train, validation, warmup = self.make_blocks(size)
            self.set_warmup(warmup)
            self.set_blocks(train, validation)

    def train_dataloader(self) -> EpochBlocks[Any]:
        """Blocks of the training cells."""
        return self.blocks[0]

    def val_dataloader(self) -> Any:
        """Blocks of the validation cells; none where nothing is validated."""
        return self.blocks[1] if len(self.blocks) > 1 else []

"""What is about to be trained: parts of the network, parameters, cells."""

from __future__ import annotations

from typing import IO, ClassVar

import lightning.pytorch as pl
from torch import nn

from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan


class Summary(pl.Callback):
    """Prints a table of the network and its cells before training.

    Parameters
    ----------
    file
        Open text file for the table; None for the standard output.

    Raises
    ------
    InvalidOptionError
        If `file` cannot be written to.
    """

    group: ClassVar[Group] = Group.RECORDER

    @check_arguments("file")
    def __init__(self, file: IO[str] | None = None) -> None:
        super().__init__()
        if file is not None and not callable(getattr(file, "write", None)):
            raise InvalidOptionError(
                f"Expected file to be an open text file or None; got {file!r:.100}. For a path, "
                "give open(path, 'w')."
            )
        self.file = file

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table."""
        if not trainer.is_global_zero:
            return
        from rich.console import Console

        console = Console(file=self.file, highlight=False)
        console.print(summary_table(pl_module))


def summary_table(pl_module: pl.LightningModule) -> object:
    """Table of the parts of a network, under a line about its cells."""
    from rich.table import Table

    module = pl_module.module if isinstance(pl_module, TrainingPlan) else pl_module
    table = Table("part", "kind", "parameters", "trained", title=summary_title(pl_module))
    for column in table.columns[2:]:
        column.justify = "right"
    inside = [name for name, _ in module.named_children()]
    own = [(name, p) for name, p in module.named_parameters() if name.split(".")[0] not in inside]
    for name, parameter in own:
        n = parameter.numel()
        table.add_row(name, "parameter", f"{n:,}", f"{n if parameter.requires_grad else 0:,}")
    for name, part in module.named_children():
        n, trained = count_parameters(part)
        table.add_row(name, type(part).__name__, f"{n:,}", f"{trained:,}")
    n, trained = count_parameters(module)
    table.add_section()
    table.add_row("all", type(module).__name__, f"{n:,}", f"{trained:,}")
    return table


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Numbers of all parameters of a module and of those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def summary_title(pl_module: pl.LightningModule) -> str:
    """What a plan knows about its cells."""
    if not isinstance(pl_module, TrainingPlan) or pl_module.split is None or pl_module.rows is None:
        return type(pl_module).__name__
    split = pl_module.split
    parts = [f"{len(pl_module.rows):,} cells", f"{len(split.train):,} for training"]
    parts += [f"{len(split.validation):,} for validation"] if len(split.validation) else []
    parts += [f"batches of {pl_module.batch_size:,}"]
    genes = pl_module.run.identity.get("genes")
    if genes is not None:
        parts.insert(1, f"{len(genes):,} genes")
    config = pl_module.run.identity.get("config", {})
    if "n_latent" in config:
        parts.append(f"latent of {config['n_latent']:,}")
    return ", ".join(parts)

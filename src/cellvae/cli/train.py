"""`cellvae train`: train a model on a file of counts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from cellvae.cli.cells import check_counts_file, read_counts, setup_name
from cellvae.cli.checks import check_options, model_class
from cellvae.cli.doublets import class_of_cells
from cellvae.cli.flags import (
    DATA,
    NETWORK,
    OPTIMIZER,
    OUTPUT,
    STOPPING,
    TRAINING,
    Flag,
    parser_type,
)
from cellvae.cli.job import DEFAULT_MODEL, Job, check_output_folder, dry_run, run_job
from cellvae.cli.model_flags import flags_of, group_by_call
from cellvae.cli.results import print_summary
from cellvae.core.platform.launcher import process_rank
from cellvae.errors import InvalidOptionError, UnknownOptionError, did_you_mean

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""`UsageError` of click, or of the copy of click in newer versions of typer."""
COMMAND_HELP = """Train a model on a file of counts.

Writes into --out: model/ (load it with cellvae.load), latent.h5ad (the cells with X_scVI),
report.json, training-curves.png, and umap.png with its coordinates in umap.csv (10,000 cells at
most). The same command again writes missing results, and resumes an interrupted run.

With --model SOLO an SCVI is trained first (scvi/), for 400 epochs or --scvi-max-epochs, and
latent.h5ad has doublet_score, doublet_probability and doublet_call in obs. --expected-rate says how
many are called.

The flags are the keyword arguments of the same names. They differ between models: `cellvae train
--model PEAKVI --help` shows those of PEAKVI.

Example: cellvae train counts.h5ad --out run/ --batch-key batch --early-stopping
"""

COUNTS_HELP = (
    "File of counts (.h5ad, .h5mu), or cells that stay in their files: a folder (.zarr) or a "
    "pattern in quotes, 'cells/*.h5ad'."
)


def program_flags() -> dict[str, tuple[str, Any, Any, str]]:
    """Flags of the program itself: panel, type, default and help by their names."""
    from cellvae.model import MODELS

    names = ", ".join(MODELS)
    return {
        "out": (OUTPUT, Path, inspect.Parameter.empty, "Folder for the results."),
        "model": (NETWORK, str, DEFAULT_MODEL, f"One of: {names}. (default: {DEFAULT_MODEL})"),
        "seed": (TRAINING, int, 0, "Seed of weights, split and noise. (default: 0)"),
        "resume": (
            TRAINING,
            bool,
            True,
            "Save the state of the run, and resume an interrupted run in --out. (default: yes)",
        ),
        "color": (
            OUTPUT,
            list[str] | None,
            None,
            "Column of obs that the UMAP is coloured by, beside labels and batch. May be repeated.",
        ),
        "umap": (OUTPUT, bool, True, "Draw a UMAP of the latent representation. (default: yes)"),
        "dry_run": (
            OUTPUT,
            bool,
            False,
            "Check file, options and folder, and say what would be done. (default: no)",
        ),
        "overwrite": (OUTPUT, bool, False, "Replace results in --out. (default: no)"),
    }


class TrainCommand(TyperCommand):
    """Command that reports usage errors as errors of the package, with the closest flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line.

        Raises
        ------
        UnknownOptionError
            If there is no such flag.
        InvalidOptionError
            If the value of a flag is invalid, or a required one is missing.
        """
        model = model_on_command_line(args)
        asks_for_help = not args
        try:
            return super().parse_args(ctx, args)
        except USAGE_ERROR as error:
            if asks_for_help or ctx.resilient_parsing:
                raise
            flag = getattr(error, "option_name", None)
            if flag is not None and hasattr(error, "possibilities"):
                raise UnknownOptionError(unknown_flag(model, str(flag))) from None
            raise InvalidOptionError(
                f"{error.format_message()} See cellvae train --model {model} --help."
            ) from None


def unknown_flag(model: str, flag: str) -> str:
    """Message about a flag that a model lacks: the models that have it, or the closest flag."""
    from cellvae.model import MODELS

    name = flag.removeprefix("--").replace("-", "_")
    owners = [other for other in MODELS if name in {f.name for f in flags_of(MODELS[other])}]
    if owners:
        return (
            f"{model} has no {flag}; {', '.join(owners)} {'has' if len(owners) == 1 else 'have'}."
        )
    known = [f.spelling for f in flags_of(model_class(model))]
    known += [f"--{own.replace('_', '-')}" for own in program_flags()]
    close = did_you_mean(flag, known)
    return f"{model} has no {flag}.{close or f' See cellvae train --model {model} --help.'}"


def model_on_command_line(args: Sequence[str]) -> str:
    """Name of the model of a command line."""
    model = DEFAULT_MODEL
    for argument, following in zip(args, [*args[1:], ""], strict=True):
        if argument == "--model":
            model = following
        elif argument.startswith("--model="):
            model = argument.removeprefix("--model=")
    return model


def train_command(model: str) -> Callable[..., None]:
    """Function of the command for a model, with the flags as parameters.

    Parameters
    ----------
    model
        Name of the model.

    Raises
    ------
    InvalidOptionError
        If there is no such model.
    """
    flags = flags_of(model_class(model))

    def train(counts: Path, out: Path, **values: Any) -> None:
        run_train(counts, out, flags, values)

    parameters = [
        keyword_parameter(
            "counts",
            Annotated[Path, typer.Argument(help=COUNTS_HELP, show_default=False)],
        )
    ]
    for name, (panel, hint, default, text) in program_flags().items():
        parameters.append(
            keyword_parameter(name, Annotated[hint, command_option(text, panel)], default)
        )
    parameters += [
        keyword_parameter(
            flag.name,
            Annotated[parser_type(flag), command_option(flag.describe(), flag.panel, flag.metavar)],
            None,
        )
        for flag in flags
    ]
    order = (None, DATA, NETWORK, TRAINING, OPTIMIZER, STOPPING, OUTPUT)
    parameters.sort(key=lambda parameter: order.index(panel_of(parameter)))
    train.__doc__ = COMMAND_HELP
    train.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    train.__annotations__ = {p.name: p.annotation for p in parameters}
    return train


def keyword_parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> Any:
    """Keyword-only parameter."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def panel_of(parameter: inspect.Parameter) -> str | None:
    """Panel of the help that lists a parameter."""
    panel: str | None = parameter.annotation.__metadata__[0].rich_help_panel
    return panel


def command_option(text: str, panel: str, metavar: str | None = None) -> Any:
    """Flag of the command, in a panel of its help."""
    return typer.Option(
        # Square brackets would be parsed as style markup.
        help=text.replace("[", r"\["),
        rich_help_panel=panel,
        show_default=False,
        metavar=metavar,
    )


def run_train(counts: Path, out: Path, flags: tuple[Flag, ...], values: Mapping[str, Any]) -> None:
    """Run the job of a command line.

    Parameters
    ----------
    counts
        File of the cells.
    out
        Folder for the results.
    flags
        Flags of the model.
    values
        Values by the names of the flags; None for omitted flags.
    """
    kwargs = group_by_call(flags, values)
    setup = kwargs["setup"]
    columns = [*(values["color"] or []), setup.get("labels_key"), setup.get("batch_key")]
    job = Job(
        model=values["model"],
        setup=setup,
        config=kwargs["config"],
        train=kwargs["train"],
        colors=tuple(dict.fromkeys(column for column in columns if column is not None)),
        umap=values["umap"],
        resume=values["resume"],
        seed=values["seed"],
        **kwargs["calls"],
    )
    check_counts_file(counts)
    method = setup_name(class_of_cells(model_class(job.model)), counts.suffix)
    check_options(job.model, job.setup, job.config, job.train, method)
    check_output_folder(out, job, overwrite=values["overwrite"])
    if values["dry_run"]:
        print(dry_run(read_counts(counts), job, out, overwrite=values["overwrite"]))
        return
    trained = run_job(read_counts(counts), job, out, overwrite=values["overwrite"])
    if process_rank() == 0:
        print_summary(trained, out)

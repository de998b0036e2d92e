"""The program `cellvae`: its commands and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from cellvae.cli.demo import demo
from cellvae.cli.report import report
from cellvae.cli.train import COMMAND_HELP, TrainCommand, model_on_command_line, train_command
from cellvae.errors import CellvaeError, TrainingError
from cellvae.version import __version__

BAD_INPUT, FAILED = 2, 1


def print_version(requested: bool) -> None:
    """Print the version and exit, if requested."""
    if requested:
        typer.echo(f"cellvae {__version__}")
        raise typer.Exit


def make_app(args: Sequence[str]) -> typer.Typer:
    """Program for a command line; the flags of `train` depend on its model.

    Parameters
    ----------
    args
        Arguments after the name of the program.
    """
    app = typer.Typer(
        name="cellvae",
        help="Train variational autoencoders on single-cell data.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def cellvae(
        version: bool = typer.Option(
            False, "--version", help="Print the version.", callback=print_version, is_eager=True
        ),
    ) -> None:
        """Train variational autoencoders on single-cell data."""

    if "train" in args[:1]:
        command = train_command(model_on_command_line(args))
        app.command("train", no_args_is_help=True, cls=TrainCommand)(command)
    else:
        # Models and torch are not imported to list the commands.
        app.command("train", help=COMMAND_HELP)(lambda: None)
    app.command("compile-kernels")(compile_kernels)
    app.command("demo")(demo)
    app.command("report", no_args_is_help=True)(report)
    return app


def compile_kernels() -> None:
    """Compile the kernels for this processor, so that no training waits for them.

    Otherwise the first training after an installation does it. In the image of a container, run it
    when the image is made, on a processor like those that will train.
    """
    from cellvae.kernels import dispatch
    from cellvae.kernels.kernel_cache import find_cache_folder

    failed = [kernel for kernel, usable in dispatch.compile_kernels().items() if not usable]
    if failed:
        raise CellvaeError(
            f"Expected to compile all kernels; could not compile {', '.join(failed)}. torch is "
            "used in their place, which is slower."
        )
    typer.echo(f"All kernels are compiled, in {find_cache_folder()}.")


@contextmanager
def print_errors_in_one_line() -> Iterator[None]:
    """Context that reports errors of the user as one line and an exit code."""
    try:
        yield
    except TrainingError as error:
        print(f"cellvae: training failed: {one_line(error)}", file=sys.stderr)
        sys.exit(FAILED)
    except (CellvaeError, OSError) as error:
        print(f"cellvae: {one_line(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def one_line(error: BaseException) -> str:
    """Message of an error in one line."""
    return " ".join(str(error).split())


def run() -> None:
    """Entry point of the program."""
    with print_errors_in_one_line():
        make_app(sys.argv[1:])()

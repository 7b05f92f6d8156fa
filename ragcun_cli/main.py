"""The command line: which commands there are, and what an error becomes."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import typer

from ragcun_cli import __version__
from ragcun_cli.commands import aws, data, demo, evaluate, preflight, recipe, report, train
from ragcun_cli.environment import read_dotenv
from ragcun_cli.errors import ExitCode, RagcunError, as_ragcun_error

app = typer.Typer(
    name="ragcun",
    no_args_is_help=True,
    # A traceback is for a defect of ragcun; its locals could hold a token, so they are never shown.
    pretty_exceptions_enable=False,
    help=(
        "Does making embeddings isotropic make dense retrieval better? "
        "ragcun takes the experiment from recipe to paper table."
    ),
    epilog="Start here: ragcun demo",
)
app.command("demo")(demo.demo)
app.add_typer(recipe.app, name="recipe")
app.add_typer(data.app, name="data")
app.command("train", epilog=train.EXAMPLES)(train.train)
app.add_typer(evaluate.app, name="eval")
app.add_typer(report.app, name="report")
app.command("preflight")(preflight.preflight)
app.add_typer(aws.app, name="aws")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ragcun {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line and leave with the exit code of `ragcun_cli.errors.ExitCode`."""
    # torch's threads wait for each other by spinning, 300,000 rounds by default. On two cores shared with a second
    # training that halves the speed (2.2 triples/s each; 4.5 with this); alone this costs 7 % (9.0; 8.4).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that knows ASCII alone: better a code than no table
    try:
        read_dotenv(Path())
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a reader that has gone is not an error
    except RagcunError as error:
        _leave(error)
    except KeyboardInterrupt:
        typer.echo("Stopped by Ctrl-C.", err=True)
        sys.exit(ExitCode.CTRL_C)
    except BrokenPipeError:
        # `ragcun … | head`: nobody reads on, which is not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.DONE)
    except OSError as error:
        known = as_ragcun_error(error)
        if known is None:
            raise
        _leave(known)


def _leave(error: RagcunError) -> None:
    from ragcun_cli.console import print_error, print_error_json

    if "--json" in sys.argv:
        print_error_json(error)
    else:
        print_error(error)
    sys.exit(error.exit_code)

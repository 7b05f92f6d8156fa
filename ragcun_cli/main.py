"""The command line: which commands there are, what `ragcun` alone shows, and what an error becomes."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import typer

from ragcun_cli import __version__
from ragcun_cli.commands import aws, data, demo, encode, evaluate, export, preflight, recipe, report, results, train
from ragcun_cli.commands.choices import expand_paths
from ragcun_cli.commands.help import explain, fit_terminal
from ragcun_cli.environment import QUIET, read_dotenv
from ragcun_cli.errors import EnvironmentUnfit, ExitCode, RagcunError, UsageError, as_ragcun_error
from ragcun_cli.streams import endure, lost_results

app = typer.Typer(
    name="ragcun",
    # A traceback is for a defect of ragcun; its locals could hold a token, so they are never shown.
    pretty_exceptions_enable=False,
    help=(
        "Does making embeddings isotropic make dense retrieval better? "
        "ragcun takes the experiment from recipe to paper table. Without a command it says where this folder stands."
    ),
    epilog="Start here: ragcun demo",
)
app.command("demo")(demo.demo)
app.command("preflight")(preflight.preflight)
app.add_typer(recipe.app, name="recipe")
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.add_typer(evaluate.app, name="eval")
app.add_typer(results.app, name="results")
app.add_typer(report.app, name="report")
app.command("encode")(encode.encode)
app.command("export")(export.export)
app.add_typer(aws.app, name="aws")
explain(app)
expand_paths(app)

QUIET_FLAGS = ("--quiet", "-q")
# Typer's usage errors are click's, which newer versions carry inside; the one public name leads to their root.
ClickException: Any = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ragcun {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
    quiet: bool = typer.Option(
        False, *QUIET_FLAGS, help="Results and errors only: no notes, no progress. May be given anywhere."
    ),
    json_output: bool = typer.Option(False, "--json", help="Without a command: the state of this folder, as JSON."),
) -> None:
    if context.invoked_subcommand is None:
        show_overview(json_output)
    elif json_output:
        raise UsageError("--json goes after the command", f"ragcun {context.invoked_subcommand} … --json")


def main() -> None:
    """Run the command line and leave with the exit code of `ragcun_cli.errors.ExitCode`."""
    # torch's threads wait for each other by spinning, 300,000 rounds by default. On two cores shared with a second
    # training that halves the speed (2.2 triples/s each; 4.5 with this); alone this costs 7 % (9.0; 8.4).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    endure()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that knows ASCII alone: better a code than no table
    try:
        read_dotenv(Path())
        code = _run(sys.argv[1:])
        sys.stdout.flush()
        if (error := lost_results()) is not None:
            raise EnvironmentUnfit(
                f"standard output: {error.strerror}: not all of what was to be printed is there",
                "Free some space and print again; what the command writes into files is whole.",
            )
    except RagcunError as error:
        _leave(error)
    except KeyboardInterrupt:
        typer.echo("Stopped by Ctrl-C.", err=True)
        sys.exit(ExitCode.CTRL_C)
    except Exception as error:
        known = as_ragcun_error(error)
        if known is None:
            _leave_with_traceback(error)
        else:
            _leave(known)
    sys.exit(code)


def _leave_with_traceback(error: Exception) -> None:
    """Of a defect of ragcun: whatever other packages quote, no credential."""
    import traceback

    from ragcun_cli.secrets import redacted

    sys.stderr.write(redacted("".join(traceback.format_exception(error))))
    sys.exit(ExitCode.FAILED)


def _run(arguments: list[str]) -> int:
    """Run a command; the exit code that it asks for.

    Raises:
        UsageError: for what Typer refuses, in the same words and as every other error.
    """
    if any(flag in arguments for flag in QUIET_FLAGS):
        arguments = [each for each in arguments if each not in QUIET_FLAGS]
        os.environ[QUIET] = "1"  # also for the processes that a command starts
    fit_terminal(app)
    try:
        code = app(arguments, prog_name="ragcun", standalone_mode=False)
    except ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help, which is printed already
            return ExitCode.USAGE
        raise _as_ours(error) from None
    except typer.Abort:
        return ExitCode.CTRL_C
    return code if isinstance(code, int) else ExitCode.DONE


# "Invalid value for '--format' / '-f': ... 'x' is not one of 'a', 'b'", as the parser says it.
OF_CHOICES = re.compile(r"Invalid value for '(--[\w-]+)'.*?'([^']*)' is not one of (.*)")


def _as_ours(error: Any) -> UsageError:
    from ragcun_cli.recipe.problems import did_you_mean

    message = str(error.message if getattr(error, "possibilities", None) else error.format_message()).rstrip(".")
    if (choice := OF_CHOICES.search(message)) is not None:
        flag, value, listed = choice.groups()
        known = re.findall(r"'([^']*)'", listed)
        message = f"{flag} {value}: unknown; {did_you_mean(value, known)}"
    wrong = getattr(error, "option_name", None)
    if getattr(error, "possibilities", None) and wrong:
        message += f"; {did_you_mean(wrong, list(error.possibilities))}"
    context = getattr(error, "ctx", None)
    where = "ragcun" if context is None else context.command_path
    return UsageError(message if choice else message[:1].lower() + message[1:], f"{where} --help")


def _leave(error: RagcunError) -> None:
    from ragcun_cli.console import print_error, print_error_json
    from ragcun_cli.processes import write_error

    write_error(error)
    if "--json" in sys.argv and lost_results() is None:
        print_error_json(error)
    else:
        print_error(error)
    sys.exit(error.exit_code)


def show_overview(json_output: bool) -> None:
    """What is done, what is next, and what else there is."""
    from ragcun_cli.console import Column, note, plain, print_json, print_table
    from ragcun_cli.standing import next_command, standing

    steps = standing(Path())
    if json_output:
        print_json({"steps": [dataclasses.asdict(step) for step in steps], "next": next_command(steps)})
        return
    rows = [
        ["[green]done[/]" if step.done else "", step.name, f"{plain(step.seen)}\n[dim]{plain(step.command)}[/]"]
        for step in steps
    ]
    print_table(
        [Column(""), Column("step"), Column("this folder", wraps=True)],
        rows,
        title="Does making embeddings isotropic make dense retrieval better?",
    )
    note(f"Next:  {next_command(steps)}")
    if any(step.done for step in steps):
        note("Help:  ragcun --help, and --help after every command")
        return
    note(
        "First: ragcun demo (two minutes: every step, small) and ragcun preflight (five: is this machine fit?)\n"
        "Help:  ragcun --help, and --help after every command"
    )

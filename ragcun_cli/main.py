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
    # A traceback appears only for a bug in ragcun. Locals could contain a token, so they are never shown.
    pretty_exceptions_enable=False,
    help=(
        "Test whether making embeddings isotropic makes dense retrieval better. "
        "ragcun takes the experiment from recipe to paper table. Without a command it shows this folder's progress."
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
# Typer's usage errors are click's, which newer versions bundle; this public name leads to their base class.
ClickException: Any = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ragcun {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
    quiet: bool = typer.Option(
        False, *QUIET_FLAGS, help="Print only results and errors: no notes, no progress. May be given anywhere."
    ),
    json_output: bool = typer.Option(False, "--json", help="Without a command: print this folder's progress as JSON."),
) -> None:
    if context.invoked_subcommand is None:
        show_overview(json_output)
    elif json_output:
        raise UsageError("--json goes after the command", f"ragcun {context.invoked_subcommand} … --json")


def main() -> None:
    """Run the command line and exit with a code from `ragcun_cli.errors.ExitCode`."""
    # torch's threads wait for each other by spinning, 300,000 rounds by default. On two cores shared with a second
    # training, that halves the speed (2.2 triples/s each; 4.5 with this). For a single one this costs 7 % (9.0; 8.4).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    endure()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # on an ASCII-only terminal an escape is better than no table
    try:
        read_dotenv(Path())
        code = _run(sys.argv[1:])
        sys.stdout.flush()
        if (error := lost_results()) is not None:
            raise EnvironmentUnfit(
                f"standard output: {error.strerror}: the output is incomplete",
                "Free some space and run the command again. Files that it wrote are complete.",
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
    """Exit with the traceback of a bug in ragcun, with credentials removed."""
    import traceback

    from ragcun_cli.secrets import redacted

    sys.stderr.write(redacted("".join(traceback.format_exception(error))))
    sys.exit(ExitCode.FAILED)


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit code.

    Raises:
        UsageError: for anything that Typer rejects, worded like every other error.
    """
    if any(flag in arguments for flag in QUIET_FLAGS):
        arguments = [each for each in arguments if each not in QUIET_FLAGS]
        os.environ[QUIET] = "1"  # also applies to child processes
    fit_terminal(app)
    try:
        code = app(arguments, prog_name="ragcun", standalone_mode=False)
    except ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command; its help has already been printed
            return ExitCode.USAGE
        raise _as_ours(error) from None
    except typer.Abort:
        return ExitCode.CTRL_C
    return code if isinstance(code, int) else ExitCode.DONE


# "Invalid value for '--format' / '-f': ... 'x' is not one of 'a', 'b'", as the parser words it.
OF_CHOICES = re.compile(r"Invalid value for '(--[\w-]+)'.*?'([^']*)' is not one of (.*)")
# "Invalid value for '--max-hours': Input should be ...", of any other value.
OF_VALUE = re.compile(r"Invalid value for '(--[\w-]+)'[^:]*: (.)")


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
    for theirs, ours in ((". Did you", "; did you"), (": Input should be", ": must be")):
        message = message.replace(theirs, ours)
    message = OF_VALUE.sub(lambda found: f"{found[1]}: {found[2].lower()}", message)
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
    """Show what is done, what comes next, and other useful commands."""
    from ragcun_cli.console import Column, note, plain, print_json, print_table
    from ragcun_cli.experiment_status import experiment_status, next_command

    steps = experiment_status(Path())
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
        note("Help:  ragcun --help, or --help after any command")
        return
    note(
        "First: ragcun demo (two minutes: every step, small) and ragcun preflight (five minutes: checks this machine)\n"
        "Help:  ragcun --help, or --help after any command"
    )

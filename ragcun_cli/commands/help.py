"""Help as it is printed: paragraphs that flow at any width, short signs for what an option takes, and the examples
last, each on a line of its own.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

EXAMPLES = re.compile(r"Examples?: (?=ragcun )")
SEPARATOR = re.compile(r"\s+\|\s+(?=ragcun )")  # between several examples in a docstring
# What an option takes, by its annotation. Typer's own "<float range>" leaves no room for the explanation at 80 columns.
CHOICE = "NAME"  # of a few, which the help names: listed as a type they would take its half
SIGNS = {"bool": "", "int": "N", "float": "X", "Path": "PATH", "str": "TEXT"}
NARROWEST_TABLE = 80  # columns; at 74 aws plan's --triples-per-second was cut
OPTIONAL, LIST = " | None", re.compile(r"list\[(\w+)\]")


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _without_types(parameters: list[Any]) -> list[Any]:
    """The flags that Typer adds, --help and those of completion, take no value: without its "<bool>"."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = SIGNS["bool"]
    return parameters


def explain(app: typer.Typer) -> None:
    """Give every command below `app` its help and epilog, from its docstring, and its options their signs.

    Typer keeps the line breaks of all paragraphs but the first, which tears them apart on another width.
    """
    app.info.cls = _Group
    for command in app.registered_commands:
        command.cls = _Command
        assert command.callback is not None
        _sign_options(command.callback)
        body, examples = parts_of(inspect.getdoc(command.callback) or "")
        command.help = body
        command.epilog = "\n\n".join(examples)
    if app.registered_callback is not None and app.registered_callback.callback is not None:
        _sign_options(app.registered_callback.callback)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        explain(group.typer_instance)


def fit_terminal(app: typer.Typer) -> None:
    """On a terminal that is too narrow for a table with room beside the options' names, help without tables."""
    if shutil.get_terminal_size().columns >= NARROWEST_TABLE:
        return
    app.rich_markup_mode = None
    for group in app.registered_groups:
        assert group.typer_instance is not None
        fit_terminal(group.typer_instance)


def _sign_options(callback: Callable[..., object]) -> None:
    for parameter in inspect.signature(callback).parameters.values():
        option = parameter.default
        if isinstance(option, OptionInfo) and option.metavar is None:
            kind = str(parameter.annotation).removesuffix(OPTIONAL)
            inner = LIST.fullmatch(kind)
            option.metavar = SIGNS.get(inner[1] if inner else kind, CHOICE)


def parts_of(docstring: str) -> tuple[str, list[str]]:
    """Paragraphs without line breaks, and the examples at the end, as lines to print."""
    paragraphs = [" ".join(paragraph.split("\n")) for paragraph in docstring.split("\n\n")]
    body, *examples = EXAMPLES.split("\n\n".join(paragraphs))
    lines = [example.strip() for part in examples for example in SEPARATOR.split(part)]
    return body.strip(), [f"Example: {line}" for line in lines]

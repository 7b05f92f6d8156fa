"""Format help: paragraphs that flow at any width, short labels for option values, and the examples
last, each on its own line.
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
# Labels for option values by annotation. Typer's own "<float range>" leaves no room for the help text at 80 columns.
CHOICE = "NAME"  # one of a few values, which the help text names; listed as a type they would take half its width
SIGNS = {"bool": "", "int": "N", "float": "X", "Path": "PATH", "str": "TEXT"}
NARROWEST_TABLE = 80  # columns; at 74, the name --triples-per-second of aws plan was cut
OPTIONAL, LIST = " | None", re.compile(r"list\[(\w+)\]")


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _without_types(parameters: list[Any]) -> list[Any]:
    """Remove Typer's "<bool>" label from the flags that it adds, --help and the completion flags."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = SIGNS["bool"]
    return parameters


def explain(app: typer.Typer) -> None:
    """Set each command's help and epilog from its docstring, and the labels of its options.

    Typer keeps line breaks in all paragraphs except the first, which looks broken at other widths.
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
    """Print help without tables if the terminal is too narrow for them."""
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
    """Split a docstring into paragraphs without line breaks and the examples, as lines to print."""
    paragraphs = [" ".join(paragraph.split("\n")) for paragraph in docstring.split("\n\n")]
    body, *examples = EXAMPLES.split("\n\n".join(paragraphs))
    lines = [example.strip() for part in examples for example in SEPARATOR.split(part)]
    return body.strip(), [f"Example: {line}" for line in lines]

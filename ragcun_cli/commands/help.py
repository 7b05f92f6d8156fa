"""Help as it is printed: paragraphs that flow at any width, and the examples last, each on a line of its own."""

from __future__ import annotations

import inspect
import re

import typer

EXAMPLES = re.compile(r"Examples?: (?=ragcun )")
SEPARATOR = re.compile(r"\s+\|\s+(?=ragcun )")  # between several examples in a docstring


def explain(app: typer.Typer) -> None:
    """Give every command below `app` its help and epilog, from its docstring.

    Typer keeps the line breaks of all paragraphs but the first, which tears them apart on another width.
    """
    for command in app.registered_commands:
        body, examples = parts_of(inspect.getdoc(command.callback) or "")
        command.help = body
        command.epilog = "\n\n".join(examples)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        explain(group.typer_instance)


def parts_of(docstring: str) -> tuple[str, list[str]]:
    """Paragraphs without line breaks, and the examples at the end, as lines to print."""
    paragraphs = [" ".join(paragraph.split("\n")) for paragraph in docstring.split("\n\n")]
    body, *examples = EXAMPLES.split("\n\n".join(paragraphs))
    lines = [example.strip() for part in examples for example in SEPARATOR.split(part)]
    return body.strip(), [f"Example: {line}" for line in lines]

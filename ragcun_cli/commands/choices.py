"""What options take: one of a few values, several values, paths. The parser refuses others and help shows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Literal

import typer
from typer.models import ParameterInfo

from ragcun_cli.files import expanded

Precision = Literal["float32", "bf16", "fp16"]
Preset = Literal["scores", "paper", "geometry", "robustness", "cost"]
TableFormat = Literal["text", "latex", "markdown", "html", "csv", "json"]
SchemaFormat = Literal["json", "markdown"]
Correction = Literal["holm", "bh", "none"]
Pick = Literal["hardest", "sample", "corpus"]
PATHS = ("Path", "Path | None", "list[Path]")


def listed(groups: str | Iterable[str]) -> tuple[str, ...]:
    """Return the values of an option given once (a string) or several times."""
    together = [groups] if isinstance(groups, str) else groups
    return tuple(part.strip() for group in together for part in group.split(",") if part.strip())


def expand_paths(app: typer.Typer) -> None:
    """Expand every path option and argument in `app` with `expanded`, because shells do not expand `--out=~/x`."""
    callbacks = [command.callback for command in app.registered_commands]
    for callback in callbacks:
        if callback is not None:
            _expand(callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            expand_paths(group.typer_instance)


def _expand(callback: Callable[..., object]) -> None:
    for parameter in inspect.signature(callback).parameters.values():
        if str(parameter.annotation) in PATHS and isinstance(parameter.default, ParameterInfo):
            parameter.default.parser = expanded

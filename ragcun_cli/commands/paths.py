"""One type for every path on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import typer
from typer.models import ParameterInfo

from ragcun_cli.paths import expanded

PATHS = ("Path", "Path | None", "list[Path]")


def expand_paths(app: typer.Typer) -> None:
    """Let every option and argument that is a path below `app` go through `expanded`: a shell leaves `--out=~/x`."""
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

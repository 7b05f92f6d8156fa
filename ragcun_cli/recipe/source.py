"""Read recipe YAML: plain values, each with the line it was written on.

PyYAML follows YAML 1.1, where `no` is false and `1e-4` is text, and it silently accepts duplicate keys.
Each of these has ruined somebody's experiment (`mixed_precision: no`, `base_learning_rate: 1e-4`), so this
loader reads numbers and booleans as YAML 1.2 does and reports duplicate keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ragcun_cli.recipe.problems import Problem, SourceLocation

KeyPath = tuple[str | int, ...]

FLOAT = re.compile(r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$")
INTEGER = re.compile(r"^[-+]?\d+$")
BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
NULL = re.compile(r"^(?:~|null|Null|NULL|)$")


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars and without anchors."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed in recipes", mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}  # drop those of YAML 1.1
# Order matters: the first matching pattern wins.
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", BOOLEAN, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", NULL, ["~", "n", "N", ""])


_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))  # YAML 1.1 reads 010 as 8
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(node.value))


@dataclass
class Source:
    """A YAML mapping as read: its values, the location of each key or list item, and what was wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    locations: dict[KeyPath, SourceLocation] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    readable: bool = True  # False: no mapping could be read, so its keys are unknown


def read_source(path: Path) -> Source:
    """Read a recipe file. Anything but a mapping of plain values is recorded as a problem."""
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _unreadable(name, "no such file")
    except IsADirectoryError:
        return _unreadable(name, "this is a folder, not a recipe")
    except UnicodeDecodeError as error:
        return _unreadable(name, f"not UTF-8 text (byte {error.start})")
    except OSError as error:
        return _unreadable(name, error.strerror or str(error))
    return parse_source(text, name)


def parse_source(text: str, name: str) -> Source:
    """Parse YAML text; problems refer to it as `name`."""
    lines = text.splitlines()
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        return _unreadable(
            name, f"not valid YAML: {_yaml_complaint(error)}", _location(name, lines, error.problem_mark)
        )
    except (yaml.YAMLError, RecursionError) as error:
        return _unreadable(name, f"not valid YAML: {str(error).splitlines()[0]}")
    if root is None:
        return _unreadable(name, "the file is empty")
    if not isinstance(root, yaml.MappingNode):
        return _unreadable(name, "a recipe must consist of `key: value` lines", _location(name, lines, root.start_mark))
    source = Source()
    source.values = _mapping(root, (), source, name, lines)
    return source


def parse_value(text: str, location: SourceLocation) -> tuple[Any, list[Problem]]:
    """Parse the value of `--set key=text` as YAML; problems refer to it as `location`."""
    try:
        node = _Loader(text).get_single_node()
    except (yaml.YAMLError, RecursionError) as error:
        shown = getattr(error, "problem", None) or str(error)
        return None, [Problem(location, f"the value is not valid YAML: {shown}")]
    source = Source()
    value = None if node is None else _value(node, (), source, location.source, [])
    return value, [Problem(location, problem.message) for problem in source.problems]


def merge(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the child's values over the parent's: mappings key by key, everything else replaced."""
    merged = dict(parent)
    for key, value in child.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _mapping(node: yaml.MappingNode, path: KeyPath, source: Source, name: str, lines: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        location = _location(name, lines, key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode):
            source.problems.append(Problem(location, "a key must be a plain word"))
            continue
        key = key_node.value
        at = (*path, key)
        if key in values:
            first = source.locations[at]
            source.problems.append(Problem(location, f"{key}: given twice (first on line {first.line})"))
            continue
        source.locations[at] = location
        values[key] = _value(value_node, at, source, name, lines)
    return values


def _value(node: yaml.Node, path: KeyPath, source: Source, name: str, lines: list[str]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, source, name, lines)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            at = (*path, index)
            source.locations[at] = _location(name, lines, item.start_mark)
            items.append(_value(item, at, source, name, lines))
        return items
    try:
        loader = _Loader("")
        return loader.construct_object(node, deep=True)
    except Exception as error:  # PyYAML may raise any error for an explicit tag such as !!timestamp
        shown = getattr(error, "problem", None) or str(error)
        source.problems.append(Problem(_location(name, lines, node.start_mark), f"cannot read this value: {shown}"))
        return None


def _location(name: str, lines: list[str], mark: yaml.Mark | None) -> SourceLocation:
    if mark is None:
        return SourceLocation(name)
    # For an unfinished document PyYAML reports the line after the last; show the last line instead.
    line = min(mark.line, max(len(lines) - 1, 0))
    text = lines[line].expandtabs(1) if lines else ""
    return SourceLocation(name, line + 1, min(mark.column, len(text)) + 1, text)


def _yaml_complaint(error: yaml.MarkedYAMLError) -> str:
    if error.context is None or error.context_mark is None:
        return str(error.problem)
    # Where a construct was opened matters more than where the parser gave up.
    return f"{error.problem} ({error.context}, starting on line {error.context_mark.line + 1})"


def _unreadable(name: str, message: str, location: SourceLocation | None = None) -> Source:
    return Source(problems=[Problem(location or SourceLocation(name), message)], readable=False)

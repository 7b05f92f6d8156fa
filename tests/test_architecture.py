"""The map of docs/architecture.md: a part imports only those above it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "ragcun_cli"
MAP = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
PARTS = re.findall(r"^  ([a-z]+)/ ", MAP, flags=re.MULTILINE)
SPANNING = {"main.py", "__main__.py", "demo.py", "exporting.py", "experiment_status.py"}  # these may import any part


def imported(path: Path) -> Iterator[str]:
    """The parts that a module imports, also inside of its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        yield from (name.split(".")[1] for name in names if name.startswith("ragcun_cli."))


def test_the_map_has_every_part() -> None:
    assert sorted(PARTS) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_only_those_above_it(part: str) -> None:
    below = set(PARTS[PARTS.index(part) + 1 :])
    found = {
        path.relative_to(PACKAGE).as_posix(): set(imported(path)) & below for path in (PACKAGE / part).rglob("*.py")
    }
    assert {name: parts for name, parts in found.items() if parts} == {}


def test_folders_of_tests_mirror_the_package() -> None:
    of_no_part = {"pinned", "properties", "faults", "distributed"}  # tests/README.md says what they hold
    tests = REPOSITORY / "tests"
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    assert {each for each in folders - of_no_part if not (PACKAGE / each).is_dir()} == set()


def test_what_all_use_knows_no_part() -> None:
    found = {path.name: set(imported(path)) & set(PARTS) for path in PACKAGE.glob("*.py") if path.name not in SPANNING}
    assert {name: parts for name, parts in found.items() if parts} == {}

"""Make pairs of query and passage from texts that every machine has: docstrings of installed Python code.

The source files are read with `ast`; nothing is imported or executed. A docstring's first sentence is the
query, and the rest is the passage.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NUMERIC_PACKAGES = ("numpy", "scipy")

# Tests and demos repeat the docstrings of the code they test; installed packages are listed separately.
SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "_testing", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages",
     "ensurepip", "__pycache__"}
)  # fmt: skip

MINIMUM_PASSAGE_WORDS = 12
QUERY_WORDS = (4, 40)
MAXIMUM_PASSAGE_WORDS = 150


@dataclass(frozen=True)
class CodeBase:
    """A tree of Python source: the standard library, or an installed package.

    `sha256` covers every file's path and content, so that the same files give the same collection.
    """

    name: str
    version: str
    root: Path
    files: tuple[Path, ...]
    sha256: str


@dataclass(frozen=True)
class Pair:
    """A query and its passage; `package` and `module` say where they were written."""

    package: str
    module: str
    query: str
    passage: str


@functools.cache  # 1,400 files are read and hashed; they do not change while a command runs
def installed_code() -> tuple[CodeBase, ...]:
    """Return the standard library and the installed ones of the numeric packages."""
    found = [_code_base("python", platform.python_version(), Path(sysconfig.get_paths()["stdlib"]))]
    for package in NUMERIC_PACKAGES:
        spec = importlib.util.find_spec(package)  # finds the folder without importing the package
        if spec is not None and spec.submodule_search_locations:
            root = Path(next(iter(spec.submodule_search_locations)))
            found.append(_code_base(package, importlib.metadata.version(package), root))
    return tuple(found)


def _code_base(name: str, version: str, root: Path) -> CodeBase:
    files = tuple(
        path
        for path in sorted(root.rglob("*.py"))
        if not SKIPPED_FOLDERS.intersection(path.relative_to(root).parts[:-1])
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return CodeBase(name, version, root, files, digest.hexdigest())


def pairs_of(code: CodeBase, wanted: Callable[[str], bool]) -> Iterator[Pair]:
    """Yield all pairs from modules whose name is wanted, in file order."""
    for path in code.files:
        module = f"{code.name}:{path.relative_to(code.root).with_suffix('').as_posix().replace('/', '.')}"
        if not wanted(module):
            continue
        for docstring in _docstrings(path):
            split = split_docstring(docstring)
            if split is not None:
                yield Pair(code.name, module, *split)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code do not concern the user
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # templates and files for other versions of Python
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


_UNDERLINE = re.compile(r"^\s*([-=~^*#\"'+])\1{2,}\s*$")
_DOCTEST = re.compile(r"^\s*(>>>|\.\.\.)")
_DIRECTIVE = re.compile(r"^\s*\.\. ")
_ROLE = re.compile(r":[\w.:-]+:`~?([^`<]*?)(?:\s*<[^>]*>)?`")
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]'\"])[.?!](?:\s+(?=[A-Z(`'\"])|\s*$)")
_EXAMPLES = re.compile(r"^\s*Examples?:?\s*$", re.MULTILINE)


def split_docstring(docstring: str) -> tuple[str, str] | None:
    """Return (first sentence, rest), cleaned, or None if either is too short or too long."""
    body = _EXAMPLES.split(docstring)[0]
    paragraphs = [_clean(paragraph) for paragraph in re.split(r"\n\s*\n", body)]
    paragraphs = [paragraph for paragraph in paragraphs if paragraph]
    if not paragraphs:
        return None
    first, *others = paragraphs
    end = _SENTENCE_END.search(first)
    query = first[: end.start()] if end else first.rstrip(".:")
    rest = " ".join([first[end.end() :] if end else "", *others]).split()
    minimum, maximum = QUERY_WORDS
    if not minimum <= len(query.split()) <= maximum or len(rest) < MINIMUM_PASSAGE_WORDS:
        return None
    return query, " ".join(rest[:MAXIMUM_PASSAGE_WORDS])


def _clean(paragraph: str) -> str:
    kept = [
        line
        for line in paragraph.splitlines()
        if not (_UNDERLINE.match(line) or _DOCTEST.match(line) or _DIRECTIVE.match(line))
    ]
    text = _ROLE.sub(r"\1", " ".join(kept)).replace("`", "").replace("*", "")
    return " ".join(text.split())

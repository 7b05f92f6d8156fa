"""Read judgements: `qrels/<split>.tsv` in BEIR's layout with a header, or TREC's four columns without one.

The header names the columns. A file without a header must be TREC's (query, iteration, passage, grade), because
three columns without a header do not show which one is the query.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ragcun_cli.data.lines import listed, require_line_ends, require_utf8_kind
from ragcun_cli.errors import DataError

FOLDER = "qrels"
ENDINGS = (".tsv", ".tsv.gz")
QUERY_NAMES = frozenset({"query-id", "query_id", "queryid", "qid", "query", "topic"})
PASSAGE_NAMES = frozenset(
    {
        "corpus-id",
        "corpus_id",
        "corpusid",
        "doc-id",
        "doc_id",
        "docid",
        "document-id",
        "passage-id",
        "passage_id",
        "pid",
    }
)
GRADE_NAMES = frozenset({"score", "grade", "relevance", "rel", "label"})
KINDS = (("query", QUERY_NAMES), ("passage", PASSAGE_NAMES), ("grade", GRADE_NAMES))
GRADE = re.compile(r"^(-?[0-9]{1,6})(?:\.0+)?$")
ITERATION = re.compile(r"^(?:Q?[0-9]{1,3})$")
FIRST_LINE = "The first line must be: query-id<TAB>corpus-id<TAB>score"

Judgement = tuple[int, str, str, int]  # line number, query id, passage id, grade


@dataclass(frozen=True)
class _Layout:
    """Positions of the columns. separator: between columns, None for any whitespace; columns: their number."""

    query: int
    passage: int
    grade: int
    columns: int
    separator: str | None
    has_header: bool

    @property
    def expected(self) -> str:
        if self.separator is None:
            return "query, iteration, passage and a whole-number grade"
        names = {self.query: "query-id", self.passage: "corpus-id", self.grade: "grade (a whole number)"}
        return "<TAB>".join(names.get(number, "...") for number in range(self.columns))


def splits_in(folder: Path) -> list[str]:
    """Return the names of a collection's splits, ignoring files that macOS leaves behind (`._test.tsv`)."""
    found = {
        path.name.removesuffix(ending)
        for ending in ENDINGS
        for path in (folder / FOLDER).glob(f"*{ending}")
        if not path.name.startswith(".")
    }
    return sorted(found)


def qrels_path(folder: Path, split: str) -> Path:
    """Return the path of a split's judgements.

    Raises:
        DataError: if they exist twice, compressed and not.
    """
    paths = [folder / FOLDER / f"{split}{ending}" for ending in ENDINGS]
    there = [path for path in paths if path.is_file()]
    if len(there) > 1:
        raise DataError(f"{there[0]} and {there[1].name} both exist", "Remove one of them.")
    return there[0] if there else paths[0]


def qrels_lines(path: Path, label: str) -> Iterator[Judgement]:
    """Yield each judgement in file order.

    If a whole cell is quoted, as CSV writers do, the quotes are removed from the id: FEVER's Wikipedia
    titles are quoted. A quote inside an id or only at one end is part of the id.

    Raises:
        DataError: naming all broken lines, once the file has been read.
    """
    problems: list[str] = []
    layout: _Layout | None = None
    for number, line in _lines(path, label):
        if layout is None:
            layout = _layout(line, f"{label}:{number}")
            if layout.has_header:
                continue
        cells = line.split(layout.separator)
        grade = grade_of(cells[layout.grade]) if len(cells) == layout.columns else None
        if grade is None:
            problems.append(f"{label}:{number}: expected {layout.expected}")
            continue
        yield number, _unquoted(cells[layout.query]), _unquoted(cells[layout.passage]), grade
    if problems:
        raise DataError(listed(problems))


def grade_of(text: str) -> int | None:
    """Parse a whole number, also as spreadsheets and pandas write it (`1.0`); return None for anything else."""
    match = GRADE.match(_unquoted(text.strip()))
    return int(match[1]) if match else None


def _lines(path: Path, label: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without line end) for non-blank lines."""
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as stream:
            for number, raw in enumerate(stream, start=1):
                if number == 1:
                    require_utf8_kind(raw, label)
                    require_line_ends(raw, label)
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{label}:{number}: not UTF-8 text (byte {error.start})") from None
                line = line.rstrip("\r\n")
                if line.strip():
                    yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{label}: damaged or incomplete ({error})", "Get it again.") from None


def _layout(line: str, place: str) -> _Layout:
    cells = [cell.strip() for cell in line.split("\t")]
    found = _columns(cells)
    if all(len(places) == 1 for places in found.values()):
        query, passage, grade = (found[kind][0] for kind, _ in KINDS)
        return _Layout(query, passage, grade, len(cells), "\t", has_header=True)
    # TREC's columns are separated by any whitespace, or by single tabs if ids contain spaces.
    separator = "\t" if line.count("\t") == 3 else None
    columns = line.split(separator)
    if len(columns) == 4 and ITERATION.match(columns[1].strip()) and grade_of(columns[3]) is not None:
        return _Layout(0, 2, 3, 4, separator, has_header=False)
    if any(found.values()) and not any(grade_of(cell) is not None for cell in cells):
        raise DataError(f"{place}: the header {_described(cells, found)}", FIRST_LINE)
    for other, shown in ((",", "commas"), (";", "semicolons"), (None, "spaces")):
        if all(_columns([cell.strip() for cell in line.split(other)]).values()):
            raise DataError(f"{place}: its columns are separated by {shown}, not by tabs", FIRST_LINE)
    raise DataError(f"{place}: the header is missing", FIRST_LINE)


def _columns(cells: Sequence[str]) -> dict[str, list[int]]:
    """Find which header cells name the query, the passage and the grade."""
    return {kind: [n for n, cell in enumerate(cells) if _unquoted(cell).lower() in names] for kind, names in KINDS}


def _described(cells: Sequence[str], found: dict[str, list[int]]) -> str:
    """Describe what is wrong with a header that has some known names."""
    for kind, places in found.items():
        if len(places) > 1:
            return f"has two columns for the {kind}: {', '.join(cells[place] for place in places)}"
    lacking = ", ".join(kind for kind, places in found.items() if not places)
    return f"({', '.join(cells)}) names no column for: {lacking}"


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else cell

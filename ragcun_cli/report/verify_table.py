"""Check that a written table still holds, by making every cell again from the current results."""

from __future__ import annotations

import difflib
import html
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.report.claims import build_claims
from ragcun_cli.report.formats.html import to_html
from ragcun_cli.report.formats.latex import escape_latex, to_latex
from ragcun_cli.report.formats.markdown import escape_markdown, to_markdown
from ragcun_cli.report.formats.plain import to_json
from ragcun_cli.report.selection import Selection
from ragcun_cli.report.staleness import without_staleness
from ragcun_cli.report.table import ResultTable, after_origins, read_origins
from ragcun_cli.report.tables import TableOptions, build_table

ROUNDING = 1e-9
COST = "cost"  # made from run folders, which are often not kept with the results
CLAIMS = '<ul class="claims">'


@dataclass(frozen=True)
class TableCheck:
    """A table's file compared with the table made again. problems: cells or lines. remarks: what may be edited by hand,
    and was.
    """

    path: str
    cells: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def verify_table(path: Path, results: Path) -> TableCheck:
    """Compare a table that `ragcun report table` wrote with the same table made from the current results.

    Raises:
        UsageError: if there is no such file, or its format does not record its origin.
        DataError: if ragcun did not write it.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: not a file that records its origin", f"Those that do end in {', '.join(sorted(SUFFIXES))}."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    return _verify_json(path, text, results) if path.suffix == ".json" else _verify_text(path, text, results)


def _verify_json(path: Path, text: str, results: Path) -> TableCheck:
    try:
        content = json.loads(text)
        options = TableOptions.of(content["options"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: not a table by ragcun", "Give what `report table --format json` wrote.") from None
    table = build_table(results, options)
    made = json.loads(to_json(table))
    names = [" / ".join(row.stubs) for row in table.rows]
    problems = [
        problem
        for key in ("rows", "cells", "notes", "caption")
        for problem in _differing(_then(content.get(key)), _then(made[key]), key)
    ]
    if not problems and content.get("provenance") != made["provenance"]:
        problems = [f"provenance {content.get('provenance')} in the table, {made['provenance']} from the results"]
    return TableCheck(str(path), _cells(table), tuple(_with_name(problem, names) for problem in problems))


def _then(content: Any) -> Any:
    """The JSON content without anything that depends on whether a model has changed since."""
    if isinstance(content, dict):
        return {key: _then(each) for key, each in content.items()}
    if isinstance(content, list):
        return [each for each in map(_then, content) if each != ""]
    return without_staleness(content) if isinstance(content, str) else content


def _differing(written: Any, made: Any, place: str) -> list[str]:
    """List where two JSON contents differ by more than rounding."""
    if isinstance(written, dict) and isinstance(made, dict):
        keys = dict.fromkeys([*made, *written])
        return [each for key in keys for each in _differing(written.get(key), made.get(key), f"{place}, {key}")]
    if isinstance(written, list) and isinstance(made, list) and len(written) == len(made):
        pairs = enumerate(zip(written, made, strict=True))
        return [each for number, (one, other) in pairs for each in _differing(one, other, f"{place} {number}")]
    if isinstance(written, list) and isinstance(made, list):
        return [f"{place}: {len(written)} in the table, {len(made)} from the results"]
    if isinstance(written, float | int) and isinstance(made, float | int):
        return [] if abs(written - made) <= ROUNDING * max(1.0, abs(made)) else [_said(place, written, made)]
    return [] if written == made else [_said(place, written, made)]


def _said(place: str, written: Any, made: Any) -> str:
    return f"{place}: {written} in the table, {made} from the results"


def _with_name(problem: str, names: Sequence[str]) -> str:
    """Put the row's name before a problem such as `rows 2, ...`."""
    kind, _, rest = problem.partition(" ")
    number = rest.split(",")[0].split(":")[0]
    named = kind in ("rows", "cells") and number.isdigit() and int(number) < len(names)
    return f"{names[int(number)]}: {problem}" if named else problem


def _verify_text(path: Path, text: str, results: Path) -> TableCheck:
    """Check every table in the file, head and rows, and a page's claims; captions and notes may be edited by hand."""
    origins = read_origins(text)
    if not origins:
        raise DataError(
            f"{path}: no line in it says how it was made", "Keep the comment that `report table` writes into it."
        )
    form, lines_of = FORMS[path.suffix]
    problems: list[str] = []
    remarks: list[str] = []
    cells = 0
    for origin, written in zip(origins, after_origins(text), strict=True):
        options = TableOptions.of(origin.get("options"))
        try:
            table = build_table(results, options)
        except UsageError as error:
            if options.preset != COST:
                raise
            remarks.append(f"{COST}: not checked: {error.message}")
            continue
        cells += _cells(table)
        (made,) = after_origins(form(table))
        expected = lines_of(made)
        found = problems_with_lines(_unmarked(lines_of(written)[: len(expected)]), _unmarked(expected))
        if not found and origin.get("provenance") != table.provenance:
            found = [f"the figures are the same, but provenance {origin.get('provenance')} is now {table.provenance}"]
        problems += [f"{table.options['preset']}: {problem}" for problem in found]
        plain = _plain(written)
        told = [each for each in map(without_staleness, (table.caption, *table.notes)) if each]
        remarks += [
            f"{table.options['preset']}: its caption or notes no longer say: {sentence}"
            for sentence in told
            if _plain(_as_written(sentence, path.suffix)) not in plain
        ]
    if path.suffix == ".html" and CLAIMS in text:
        problems += problems_with_claims(text, TableOptions.of(origins[0].get("options")), results)
    return TableCheck(str(path), cells, tuple(problems), tuple(remarks))


def problems_with_claims(text: str, options: TableOptions, results: Path) -> list[str]:
    """Check every claim of a page, whose first table is the scores table."""
    written = [html.unescape(each) for each in re.findall(r'<li class="[a-z]*">(.*?)</li>', text)]
    selection = Selection(
        options.metric, options.datasets, options.rows, options.baseline, options.correction, options.primary
    )
    stated = build_claims(results, selection)
    return [
        f"claims: {each}"
        for each in problems_with_lines(sorted(_unmarked(written)), sorted(_unmarked(stated.sentences())))
    ]


def _unmarked(lines: Iterable[str]) -> list[str]:
    return [each for each in map(without_staleness, lines) if each]


def _as_written(sentence: str, suffix: str) -> str:
    escaping: dict[str, Callable[[str], str]] = {".tex": escape_latex, ".md": escape_markdown, ".html": html.escape}
    return escaping[suffix](sentence)


def _plain(text: str) -> str:
    return "".join(text.split())


def problems_with_lines(written: Sequence[str], expected: Sequence[str]) -> list[str]:
    """List lines that are missing, and lines that should not be there."""
    changes = difflib.SequenceMatcher(None, written, expected, autojunk=False).get_opcodes()
    problems = []
    for kind, start, stop, there, until in changes:
        if kind in ("replace", "insert"):
            problems += [f"the results give this line: {line}" for line in expected[there:until]]
        if kind == "delete":
            problems += [f"the results do not give this line: {line}" for line in written[start:stop]]
    return problems


def _cells(table: ResultTable) -> int:
    return len(table.rows) * len(table.columns)


def _latex_lines(text: str) -> list[str]:
    """The heads and rows of the tabulars."""
    blocks = re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    return [
        _blanks(line) for block in blocks for line in block.splitlines() if "&" in line or line.rstrip().endswith(r"\\")
    ]


def _markdown_lines(text: str) -> list[str]:
    """The lines of the first table."""
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), text.splitlines())
    return [_blanks(line) for line in itertools.takewhile(lambda line: line.startswith("|"), lines)]


def _html_lines(text: str) -> list[str]:
    """The lines of the first table, without its caption."""
    block = text.partition("<table>")[2].partition("</table>")[0]
    return [_blanks(line) for line in block.splitlines() if line.strip() and not line.startswith("<caption>")]


# How to write each format, and how to find the table's lines in it.
FORMS: dict[str, tuple[Callable[[ResultTable], str], Callable[[str], list[str]]]] = {
    ".tex": (to_latex, _latex_lines),
    ".md": (to_markdown, _markdown_lines),
    ".html": (to_html, _html_lines),
}
SUFFIXES = (".json", *FORMS)


def _blanks(line: str) -> str:
    return " ".join(line.split())

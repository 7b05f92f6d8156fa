"""A table before any format: cells with their figure and its spread, and the line that says where it comes from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ragcun_cli.report.rows import Row, mean_and_deviation
from ragcun_cli.report.staleness import without_staleness

SCORE_DIGITS = 2
ISOSCORE_DIGITS = 3
BETTER, WORSE = "†", "‡"
LABELS = {"ndcg": "nDCG", "recall": "Recall", "map": "MAP", "mrr": "MRR", "precision": "P", "judged": "Judged",
          "capped_recall": "Capped recall"}  # fmt: skip
START = "ragcun report table "
ORIGIN = re.compile(re.escape(START) + r"(\{.*\})")


@dataclass(frozen=True)
class FigureColumn:
    """A column of figures. digits: after the decimal point."""

    label: str
    digits: int = SCORE_DIGITS


@dataclass(frozen=True)
class Cell:
    """An unrounded figure, None if missing, with its standard deviation over seeds, None for a single seed.

    mark: BETTER, WORSE or nothing. sources: the fingerprints of the results it is made from.
    """

    value: float | None
    deviation: float | None = None
    seeds: int = 0
    best: bool = False
    second: bool = False
    mark: str = ""
    sources: tuple[str, ...] = ()

    def printed(self, digits: int) -> str | None:
        """The figure without its deviation; None if missing."""
        return None if self.value is None else f"{self.value:.{digits}f}"

    def printed_deviation(self, digits: int) -> str | None:
        """The text after the ±; None if there is none."""
        return None if self.value is None or self.deviation is None else f"{self.deviation:.{digits}f}"


MISSING = Cell(None)


@dataclass(frozen=True)
class TableRow:
    """A row of the table. stubs: its names, one for each of the table's stub columns."""

    stubs: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ResultTable:
    """A table. caption: what the figures are. notes: what else a reader must know. marks: what the marks mean, where
    a format has them. options: what made it, so it can be made again. compared_with: the fingerprints of the
    results that the marks compare with.
    """

    caption: str
    notes: tuple[str, ...]
    marks: str
    stubs: tuple[str, ...]
    columns: tuple[FigureColumn, ...]
    rows: tuple[TableRow, ...]
    options: dict[str, Any]
    compared_with: tuple[str, ...] = ()

    @property
    def provenance(self) -> str:
        """A hash of all figures, marks and results behind the table, printed so that it can be traced."""
        cells = [[list(map(without_staleness, row.stubs)), [_traced(cell) for cell in row.cells]] for row in self.rows]
        content = [[column.label for column in self.columns], cells, self.compared_with]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _traced(cell: Cell) -> list[object]:
    """A cell to nine digits, since another machine may sum in another order."""
    figures = [None if figure is None else f"{figure:.9g}" for figure in (cell.value, cell.deviation)]
    return [*figures, cell.mark, cell.sources]


def metric_label(metric: str) -> str:
    """The metric's name as papers write it."""
    family, _, cut = metric.partition("@")
    return LABELS.get(family, family) + (f"@{cut}" if cut else "")


def mean_cell(values: Sequence[float], sources: Sequence[str]) -> Cell:
    """The mean over seeds; missing if there are no values."""
    if not values:
        return MISSING
    mean, deviation = mean_and_deviation(values)
    return Cell(mean, deviation, len(values), sources=tuple(sources))


def ranked(cells: Sequence[Cell], digits: int) -> list[Cell]:
    """Mark best and second best by the printed figures, so that equal figures share a mark."""
    printed = [float(text) for cell in cells if (text := cell.printed(digits)) is not None]
    if len(printed) < 2:
        return list(cells)
    best, *others = sorted(set(printed), reverse=True)
    second = others[0] if others else None
    return [
        cell
        if (text := cell.printed(digits)) is None
        else replace(cell, best=float(text) == best, second=float(text) == second)
        for cell in cells
    ]


def seeds_sentence(rows: Sequence[Row]) -> str:
    """Say over how many seeds rows were trained, and what the ± is; empty if none was trained."""
    counts = {row.label: len(row.members) for row in rows if row.trained}
    several = {count for count in counts.values() if count > 1}
    if not several:
        return "One seed each: seed variance unknown." if counts else ""
    if len(set(counts.values())) == 1:
        return f"Mean ± standard deviation over {several.pop()} seeds."
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"Mean ± standard deviation over seeds ({listed})."


def origin_line(table: ResultTable) -> str:
    """Options and provenance as JSON, escaping whatever would end an HTML comment or begin a tag."""
    content = json.dumps({"options": table.options, "provenance": table.provenance})
    for character in "-<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return START + content


def read_origins(text: str) -> list[dict[str, Any]]:
    """Read what `origin_line` wrote into a text, one item for each table."""
    found = []
    for match in ORIGIN.finditer(text):
        try:
            found.append(json.loads(match.group(1)))
        except ValueError:
            found.append({})
    return found


def after_origins(text: str) -> list[str]:
    """The text after each origin line, up to the next."""
    ends = [match.end() for match in ORIGIN.finditer(text)]
    starts = [match.start() for match in ORIGIN.finditer(text)]
    return [text[end:stop] for end, stop in zip(ends, [*starts[1:], len(text)], strict=True)]

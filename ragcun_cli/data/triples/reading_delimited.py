"""Read rows from TSV, where a tab always ends a column, and CSV, where quoted cells may have commas and line ends."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from ragcun_cli.data.lines import NOT_UTF8, require_no_zero_bytes
from ragcun_cli.data.triples.blocks import Lines, blocks_of_lines, in_order
from ragcun_cli.data.triples.columns import (
    Columns,
    find_columns,
    goes_on,
    header_of,
    is_in_quotes,
    is_quoted_header,
    quoted_cells,
    require_delimiter,
)
from ragcun_cli.data.triples.rows import RowBlock, block_of_texts
from ragcun_cli.errors import DataError

ROWS_AT_A_TIME = 20_000  # for CSV files
LONGEST_CELL = 1 << 20  # characters; limits the damage of an unclosed quote

Row = tuple[int, Sequence[str]]  # line number, cells


def read_tsv(stream: BinaryIO, name: str) -> tuple[Columns, Iterator[RowBlock]]:
    """Read a TSV file: its columns, by header or in the order query, positive, negatives, and all rows."""
    blocks = blocks_of_lines(stream, name)
    first = next(blocks, Lines.of(1, b""))
    if is_quoted_header(first.content.split(b"\n", 1)[0].decode("utf-8", "replace").strip().split("\t")):
        return _read_quoted(itertools.chain([first], blocks), name, "\t")
    _look_at_first_line(first, "\t", name)
    columns, names, has_header = _layout(next(_tsv_rows(first, name, []), None), name)

    def all_blocks() -> Iterator[Lines]:
        yield first
        yield from blocks

    def parse(lines: Lines) -> RowBlock:
        broken: list[str] = []
        rows = _without_quotes(_tsv_rows(lines, name, broken), b'""' in lines.content, len(names), name)
        if has_header and lines is first:
            next(rows)
        return block_of_cells(rows, columns, names, name, broken)

    return columns, in_order(parse, all_blocks())


def read_csv(stream: BinaryIO, name: str) -> tuple[Columns, Iterator[RowBlock]]:
    """Read a CSV file: its columns and all rows."""
    blocks = blocks_of_lines(stream, name)
    first = next(blocks, Lines.of(1, b""))
    _look_at_first_line(first, ",", name)
    return _read_quoted(itertools.chain([first], blocks), name, ",")


def _look_at_first_line(first: Lines, delimiter: str, name: str) -> None:
    line = first.content.split(b"\n", 1)[0]
    require_no_zero_bytes(line, f"{name}:{first.first}")
    require_delimiter(line.decode("utf-8", "replace").rstrip("\r"), delimiter, f"{name}:{first.first}")


def _without_quotes(rows: Iterator[Row], may_have: bool, columns: int, name: str) -> Iterator[Row]:
    """Yield the rows, checking for quoted cells. may_have: whether there are any doubled quotes.

    Raises:
        DataError: at the first cell quoted by a spreadsheet, whose text would otherwise include the quotes.
    """
    before: Sequence[str] | None = None
    for number, cells in rows:
        if may_have and any(map(is_in_quotes, cells)):
            raise quoted_cells(f"{name}:{number}")
        if len(cells) < columns:
            if before is not None and goes_on(before, cells, columns):
                raise quoted_cells(f"{name}:{number}")
            before = cells
        else:
            before = None
        yield number, cells


def _read_quoted(content: Iterable[Lines], name: str, delimiter: str) -> tuple[Columns, Iterator[RowBlock]]:
    broken: list[str] = []
    rows = _csv_rows(content, name, broken, delimiter)
    first = next(rows, None)
    columns, names, has_header = _layout(first, name)

    def blocks() -> Iterator[RowBlock]:
        some = [] if has_header or first is None else [first]
        for row in rows:
            some.append(row)
            if len(some) == ROWS_AT_A_TIME:
                yield block_of_cells(some, columns, names, name, broken)
                some = []
                broken.clear()
        yield block_of_cells(some, columns, names, name, broken)

    return columns, blocks()


def _layout(first: Row | None, name: str) -> tuple[Columns, list[str], bool]:
    """Return the columns, the name of each cell, and whether the first row is a header."""
    if first is None:
        return Columns("query", "positive", ()), [], False
    number, cells = first
    header = header_of(cells, f"{name}:{number}")
    if header is None:
        negatives = ["negative"] if len(cells) <= 3 else [f"negative_{each}" for each in range(1, len(cells) - 1)]
        names = ["query", "positive", *negatives]
    else:
        names = header
    columns = find_columns(names)
    assert columns is not None
    return columns, names, header is not None


def _tsv_rows(lines: Lines, name: str, broken: list[str]) -> Iterator[Row]:
    try:
        texts: Iterable[tuple[int, str]] = enumerate(lines.content.decode("utf-8").split("\n"), start=lines.first)
    except UnicodeDecodeError:
        texts = _decoded(lines, name, broken)
    for number, text in texts:
        if text.strip(" \r"):  # a line of tabs is not blank but a row without texts
            yield number, text.rstrip("\r").split("\t")


def _decoded(lines: Lines, name: str, broken: list[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines.content.split(b"\n"), start=lines.first):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            broken.append(f"{name}:{number}: {NOT_UTF8} (byte {error.start})")


def _csv_rows(content: Iterable[Lines], name: str, broken: list[str], delimiter: str) -> Iterator[Row]:
    def lines() -> Iterator[str]:
        for block in content:
            # Invalid UTF-8 becomes half surrogates, which `_not_utf8` finds.
            # Not str.splitlines, which treats six other characters as line ends, such as U+0085 and U+2028.
            text = block.content.decode("utf-8", "surrogateescape")
            yield from io.StringIO(text, newline="\n")

    limit_before = csv.field_size_limit(LONGEST_CELL)
    try:
        reader = csv.reader(lines(), strict=True, delimiter=delimiter)
        begins = 1
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"{name}:{begins}: cannot be read as CSV: {error}", "Check for an unclosed quote."
                ) from None
            if cells is None:
                return
            number, begins = begins, reader.line_num + 1
            if not cells:
                continue
            if any(not cell.isascii() and _not_utf8(cell) for cell in cells):
                broken.append(f"{name}:{number}: {NOT_UTF8}")
                continue
            yield number, cells
    finally:
        csv.field_size_limit(limit_before)


def _not_utf8(cell: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in cell)


def block_of_cells(rows: Iterable[Row], columns: Columns, names: list[str], name: str, broken: list[str]) -> RowBlock:
    """Make a block of rows whose cells are called `names`.

    `broken` contains the rows left out so far; those found here are added.
    """
    query, positive = names.index(columns.query) if names else 0, names.index(columns.positive) if names else 1
    others = [names.index(each) for each in columns.negatives]
    needed, most = max(query, positive) + 1, len(names)
    queries, positives, negatives, numbers = [], [], [], []
    for number, cells in rows:
        if not needed <= len(cells) <= most:
            broken.append(f"{name}:{number}: {_expected(needed, names)} (got {len(cells)})")
            continue
        queries.append(cells[query])
        positives.append(cells[positive])
        # An empty cell is the only way for such a file to say "none".
        negatives.append([cells[each] for each in others if each < len(cells) and cells[each].strip()])
        numbers.append(number)
    return block_of_texts(queries, positives, negatives, lambda row: f"{name}:{numbers[row]}", broken)


def _expected(needed: int, names: list[str]) -> str:
    counts = f"{needed} to {len(names)}" if len(names) > needed + 1 else f"{needed} or {len(names)}"
    if len(names) == needed:
        counts = str(needed)
    return f"{counts} columns expected: {', '.join(names)}"

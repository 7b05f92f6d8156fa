"""Read rows from JSON Lines or from a single JSON list.

Arrow parses each block of lines into columns without Python objects. If it finds anything odd in a block, the
block is read again line by line to find out what is wrong with which line.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ragcun_cli.data.lines import numbered_lines, parse_json_line, text_of
from ragcun_cli.data.triples.blocks import BLOCK_BYTES, LONGEST_LINE, Lines, blocks_of_lines, in_order
from ragcun_cli.data.triples.columns import QUERY, Columns, find_columns, is_negative
from ragcun_cli.data.triples.formats import BYTE_ORDER_MARK
from ragcun_cli.data.triples.rows import RowBlock, block_of_texts, clean, lists_of
from ragcun_cli.errors import DataError

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
ROWS_AT_A_TIME = 20_000  # for JSON lists
# A line that is just `null` crashes the process in Arrow 26.0's reader; any other odd line is an error.
NULL_FOR_A_ROW = re.compile(rb"(?:\A|[}\n])\s*null")
USUAL = Columns("query", "positive", ("negative",))


class _Odd(Exception):
    """A block that Arrow's columns cannot hold, or only with gaps."""


def read_json_lines(stream: BinaryIO, name: str) -> tuple[Columns, Iterator[RowBlock]]:
    """Read JSON Lines: the columns of the first line, and all rows."""
    blocks = blocks_of_lines(stream, name)
    first = next(blocks, Lines.of(1, b""))
    columns, schema = _schema(first.content)

    def all_blocks() -> Iterator[Lines]:
        yield first
        yield from blocks

    return columns, in_order(functools.partial(_parse, name=name, columns=columns, schema=schema), all_blocks())


def read_json_list(stream: BinaryIO, name: str) -> tuple[Columns, Iterator[RowBlock]]:
    """Read a JSON list: the columns of the first object, and all rows. The whole list is never in memory."""
    records = _records(stream, name)
    first = next(records, None)
    columns = find_columns(list(first[1])) if first is not None and isinstance(first[1], dict) else None

    def rows() -> Iterator[RowBlock]:
        some = [first] if first is not None else []
        for record in records:
            some.append(record)
            if len(some) == ROWS_AT_A_TIME:
                yield _from_records(some, name)
                some = []
        yield _from_records(some, name)

    return columns or USUAL, rows()


def _schema(content: bytes) -> tuple[Columns, pa.Schema]:
    """Return the columns of the first non-blank line, or the usual ones if it cannot be read."""
    line = next((line for line in content.split(b"\n", 64) if line.strip()), b"")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    columns = find_columns(list(record)) if isinstance(record, dict) else None
    if columns is None:
        columns, record = USUAL, {}
    names = (columns.query, columns.positive, *columns.negatives)
    assert isinstance(record, dict)
    return columns, pa.schema([(each, TEXTS if isinstance(record.get(each), list) else TEXT) for each in names])


def _parse(lines: Lines, name: str, columns: Columns, schema: pa.Schema) -> RowBlock:
    try:
        return _columnar(lines, columns, schema)
    # pyarrow's errors for broken JSON, a value of a different type than in the first line (ArrowNotImplementedError),
    # a column that no line has, or one whose name is not UTF-8: reading line by line tells which, or reads the file.
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, UnicodeDecodeError, _Odd):
        return _line_by_line(lines, name)


def _columnar(lines: Lines, columns: Columns, schema: pa.Schema) -> RowBlock:
    content = lines.content
    if b"null" in content and NULL_FOR_A_ROW.search(content):
        raise _Odd
    table = pyarrow.json.read_json(
        pa.BufferReader(content),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
    )
    known = set(schema.names)
    if any(is_negative(each) and each not in known for each in table.column_names):
        raise _Odd  # later rows have negatives under another name
    if table.num_rows != lines.ends + (not content.endswith(b"\n")):
        raise _Odd  # blank lines, or two objects on one line
    queries, positives = (table[each].combine_chunks() for each in (columns.query, columns.positive))
    if queries.null_count or positives.null_count or queries.type != TEXT:
        raise _Odd
    negatives = _as_lists([table[each].combine_chunks() for each in columns.negatives], table.num_rows)
    if positives.type == TEXTS:
        owners = pc.list_parent_indices(positives)
        if len(pc.unique(owners)) != len(positives):
            raise _Odd  # a row without any positive
        queries, positives, negatives = queries.take(owners), positives.flatten(), negatives.take(owners)
    for texts in (queries, positives, negatives.flatten()):
        texts.validate(full=True)  # UTF-8
        if texts.null_count:
            raise _Odd
    block = clean(RowBlock(queries, positives, negatives), str)
    if block.broken:
        raise _Odd
    return block


def _as_lists(columns: list[pa.Array], rows: int) -> pa.ListArray:
    """Make one list of negatives per row; null means none."""
    if len(columns) == 1 and columns[0].type == TEXTS:
        lists = pc.fill_null(columns[0], [])
        return pa.ListArray.from_arrays(pa.array(_starts(lists), pa.int32()), lists.flatten())
    if any(each.type != TEXT for each in columns):
        raise _Odd
    # Row after row: the first row's negatives, then the second's.
    joined = pa.concat_arrays(columns) if columns else pa.array([], TEXT)
    by_row = joined.take(pa.array(np.arange(len(joined)).reshape(len(columns), rows).T.reshape(-1)))
    there = by_row.is_valid().to_numpy(zero_copy_only=False).reshape(rows, len(columns))
    return lists_of(by_row.drop_null(), there.sum(axis=1))


def _starts(lists: pa.ListArray) -> np.ndarray[Any, np.dtype[np.int32]]:
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _line_by_line(lines: Lines, name: str) -> RowBlock:
    records: list[tuple[int, dict[str, Any]]] = []
    broken = []
    for number, line in numbered_lines(lines.content.split(b"\n"), name):
        try:
            records.append((lines.first + number - 1, parse_json_line(line, f"{name}:{lines.first + number - 1}")))
        except DataError as problem:
            broken.append(problem.message)
    return _from_records(records, name, broken)


def _from_records(records: Sequence[tuple[int, Any]], name: str, left_out: Sequence[str] = ()) -> RowBlock:
    """Make rows from pairs of line number and what should be an object; each positive gives one row."""
    queries: list[str] = []
    positives: list[str] = []
    negatives: list[list[str]] = []
    places: list[int] = []
    broken = list(left_out)
    for number, record in records:
        try:
            query, answers, others = _row(record, f"{name}:{number}")
        except DataError as problem:
            broken.append(problem.message)
            continue
        for answer in answers:
            queries.append(query)
            positives.append(answer)
            negatives.append(others)
            places.append(number)
    return block_of_texts(queries, positives, negatives, lambda row: f"{name}:{places[row]}", broken)


def _row(record: Any, place: str) -> tuple[str, list[str], list[str]]:
    """Return query, positives and negatives of one object."""
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected a JSON object (got {type(record).__name__})")
    columns = find_columns(list(record))
    if columns is None:
        missing = "query" if not any(name in record for name in QUERY) else "positive"
        raise DataError(f"{place}: {missing!r} is missing; its keys are {', '.join(record) or 'none'}")
    negatives = [text for key in columns.negatives if record[key] is not None for text in _texts(record, key, place)]
    answers = _texts(record, columns.positive, place)
    if not answers:
        raise DataError(f"{place}: {columns.positive!r} is empty")
    return text_of(record, columns.query, place, strip=False), answers, negatives


def _texts(record: dict[str, Any], key: str, place: str) -> list[str]:
    value = record[key]
    # Whitespace around texts is stripped later, from whole columns, by the same rule for all formats.
    return [text_of({key: each}, key, place, strip=False) for each in (value if isinstance(value, list) else [value])]


def _records(stream: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value) for each element of a JSON list, decoded as the file is read.

    Raises:
        DataError: at the first element that is not JSON, because the start of the next one is unknown.
    """
    text = _Text(stream, name)
    text.expect("[")
    ended = text.next_is("]")
    while not ended:
        yield text.value()
        ended = text.next_is("]")
        if not ended:
            text.expect(",")
    text.expect("]")
    if text.peek():
        raise DataError(f"{name}:{text.line}: there is more after the end of the list", "A file must be a single list.")


class _Text:
    """The rest of a file's text, with at most one value and one block in memory, and the current line."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.line = 1
        self._stream = stream
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._begun = self._ended = False

    def peek(self) -> str:
        """Return the next non-blank character, or an empty string at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read_on()

    def next_is(self, character: str) -> bool:
        """Return whether this is the next non-blank character."""
        return self.peek() == character

    def expect(self, character: str) -> None:
        """Consume this character."""
        found = self.peek()
        if not found:
            raise DataError(
                f"{self._name}:{self.line}: the file ends inside the list", "It may be incomplete: get it again."
            )
        if found != character:
            raise DataError(f"{self._name}:{self.line}: expected {character!r}, not {found!r}")
        self._at += 1

    def value(self) -> tuple[int, Any]:
        """Consume a JSON value; return the line it starts on, and the value."""
        if not self.peek():
            raise DataError(
                f"{self._name}:{self.line}: the file ends inside the list", "It may be incomplete: get it again."
            )
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # A number at the end of the buffer may continue.
                if end < len(self._text) or self._ended:
                    break
            except (json.JSONDecodeError, RecursionError) as error:
                if self._ended or len(self._text) - self._at > LONGEST_LINE:
                    raise self._broken(error) from None
            except ValueError as error:
                raise DataError(f"{self._name}:{self.line}: cannot be read: {error}") from None
            self._read_on()
        line = self.line
        self.line += self._text.count("\n", self._at, end)
        self._at = end
        return line, value

    def _broken(self, error: Exception) -> DataError:
        line = self.line + self._text.count("\n", self._at, getattr(error, "pos", self._at))
        return DataError(f"{self._name}:{line}: not valid JSON: {getattr(error, 'msg', error)}")

    def _read_on(self) -> None:
        block = self._stream.read(BLOCK_BYTES)
        if not self._begun:
            block, self._begun = block.removeprefix(BYTE_ORDER_MARK), True
        self._ended = not block
        try:
            fresh = self._decoder.decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            line = self.line + self._text.count("\n", self._at) + block.count(b"\n", 0, error.start)
            raise DataError(f"{self._name}:{line}: not UTF-8 text") from None
        self._text, self._at = self._text[self._at :] + fresh, 0

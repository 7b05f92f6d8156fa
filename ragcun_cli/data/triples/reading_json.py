"""Rows from JSON Lines and from one JSON list.

A block of lines is parsed by Arrow, whose columns need no Python objects. Where that finds anything odd in a block, the
block is read again line by line, which says what is wrong with which line.
"""

from __future__ import annotations

import codecs
import functools
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ragcun_cli.data.lines import numbered_lines, parse_json_line, text_of
from ragcun_cli.data.triples.blocks import BLOCK_BYTES, LONGEST_LINE, Lines, blocks_of_lines, in_order
from ragcun_cli.data.triples.columns import Columns, find_columns, is_negative
from ragcun_cli.data.triples.formats import BYTE_ORDER_MARK
from ragcun_cli.data.triples.rows import RowBlock, block_of_texts, clean, lists_of
from ragcun_cli.errors import DataError

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
ROWS_AT_A_TIME = 20_000  # of a JSON list
USUAL = Columns("query", "positive", ("negative",))


class _Odd(Exception):
    """A block that Arrow's columns cannot hold, or hold with gaps."""


def read_json_lines(stream: BinaryIO, name: str) -> tuple[Columns, Iterator[RowBlock]]:
    """The columns that the first line has, and all rows."""
    blocks = blocks_of_lines(stream, name)
    first = next(blocks, Lines(1, b""))
    columns, schema = _schema(first.content)

    def all_blocks() -> Iterator[Lines]:
        yield first
        yield from blocks

    return columns, in_order(functools.partial(_parse, name=name, columns=columns, schema=schema), all_blocks())


def read_json_list(stream: BinaryIO, name: str) -> tuple[Columns, Iterator[RowBlock]]:
    """The columns that the first object has, and all rows; the list is never in memory whole."""
    records = _records(stream, name)
    first = next(records, None)
    columns = (find_columns(list(first[1])) if first is not None else None) or USUAL

    def rows() -> Iterator[RowBlock]:
        some = [first] if first is not None else []
        for record in records:
            some.append(record)
            if len(some) == ROWS_AT_A_TIME:
                yield _from_records(some, name)
                some = []
        yield _from_records(some, name)

    return columns, rows()


def _schema(content: bytes) -> tuple[Columns, pa.Schema]:
    """What the first line that is not blank has; the usual columns if it cannot be read."""
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
        return _columnar(lines.content, columns, schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, _Odd):
        return _line_by_line(lines, name)


def _columnar(content: bytes, columns: Columns, schema: pa.Schema) -> RowBlock:
    table = pyarrow.json.read_json(
        pa.BufferReader(content),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
    )
    known = set(schema.names)
    if any(is_negative(each) and each not in known for each in table.column_names):
        raise _Odd  # rows further down have negatives under another name
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    if table.num_rows != lines:
        raise _Odd  # blank lines, or two objects on one
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
    """One list of negatives a row; a null is none."""
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
    for number, line in numbered_lines(lines.content.split(b"\n")):
        try:
            records.append((lines.first + number - 1, parse_json_line(line, f"{name}:{lines.first + number - 1}")))
        except DataError as problem:
            broken.append(problem.message)
    return _from_records(records, name, broken)


def _from_records(records: list[tuple[int, dict[str, Any]]], name: str, broken: list[str] | None = None) -> RowBlock:
    """Rows of (line number, object); each positive makes one."""
    queries: list[str] = []
    positives: list[str] = []
    negatives: list[list[str]] = []
    places: list[int] = []
    broken = list(broken or [])
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


def _row(record: dict[str, Any], place: str) -> tuple[str, list[str], list[str]]:
    """Query, positives and negatives of one object."""
    columns = find_columns(list(record))
    if columns is None:
        # Names what is missing, by the usual name.
        for usual in ("query", "positive"):
            text_of(record, usual, place)
        raise DataError(f"{place}: there is no query or no positive")
    negatives = [text for key in columns.negatives if record[key] is not None for text in _texts(record, key, place)]
    answers = _texts(record, columns.positive, place)
    if not answers:
        raise DataError(f"{place}: {columns.positive!r} is empty")
    return text_of(record, columns.query, place), answers, negatives


def _texts(record: dict[str, Any], key: str, place: str) -> list[str]:
    value = record[key]
    return [text_of({key: each}, key, place) for each in (value if isinstance(value, list) else [value])]


def _records(stream: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each element of a JSON list, decoded as the file is read.

    Raises:
        DataError: at the first element that is not JSON: where the next one begins cannot be known.
    """
    decoder, decode = codecs.getincrementaldecoder("utf-8")(), json.JSONDecoder().raw_decode
    text, at, line, ended, expected = "", 0, 1, False, "["
    while True:
        at, line = _skip_blanks(text, at, line)
        if at < len(text) and expected:
            found = text[at]
            if found not in expected:
                raise DataError(f"{name}:{line}: {' or '.join(map(repr, expected))} is expected, not {found!r}")
            at += 1
            if found == "]":
                return
            expected = "" if found == "," else "]"
            if found == "[":
                at, line = _skip_blanks(text, at, line)
                expected = "]" if text[at : at + 1] == "]" else ""
            continue
        if at < len(text):
            try:
                value, end = decode(text, at)
            except (json.JSONDecodeError, RecursionError) as error:
                if ended or len(text) - at > LONGEST_LINE:
                    at_line = line + text.count("\n", at, getattr(error, "pos", at))
                    reason = getattr(error, "msg", str(error))
                    raise DataError(f"{name}:{at_line}: not valid JSON: {reason}") from None
            except ValueError as error:
                raise DataError(f"{name}:{line}: cannot be read: {error}") from None
            else:
                if end < len(text) or ended:
                    if not isinstance(value, dict):
                        raise DataError(f"{name}:{line}: a JSON object is expected (got {type(value).__name__})")
                    yield line, value
                    line += text.count("\n", at, end)
                    at, expected = end, ",]"
                    continue
        if ended:
            raise DataError(f"{name}:{line}: the file ends inside the list", "Is it whole? Get it again.")
        block = stream.read(BLOCK_BYTES if text else BLOCK_BYTES // 8)
        if not text:
            block = block.removeprefix(BYTE_ORDER_MARK)
        ended = not block
        try:
            text, at = text[at:] + decoder.decode(block, final=ended), 0
        except UnicodeDecodeError as error:
            broken_at = line + text.count("\n", at) + block.count(b"\n", 0, error.start)
            raise DataError(f"{name}:{broken_at}: not UTF-8 text") from None


def _skip_blanks(text: str, at: int, line: int) -> tuple[int, int]:
    while at < len(text) and text[at] in " \t\r\n":
        line += text[at] == "\n"
        at += 1
    return at, line

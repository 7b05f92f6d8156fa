"""Read files of texts to encode: one per line, or a column of JSON Lines, TSV, CSV or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragcun_cli.data.lines import json_lines, require_line_ends, require_no_zero_bytes, require_utf8_kind, text_of
from ragcun_cli.data.naming import is_zip
from ragcun_cli.data.triples.columns import goes_on, is_in_quotes, is_quoted_header, quoted_cells, require_delimiter
from ragcun_cli.data.triples.formats import COMPRESSIONS, SNIFFED, TripleFile, recognise
from ragcun_cli.errors import DataError, UsageError
from ragcun_cli.recipe.problems import did_you_mean

ID_COLUMNS = ("_id", "id")
TEXT, TITLE = "text", "title"
ROWS_AT_A_TIME = 8192
TEXT_EXAMPLE = '{"_id": "...", "text": "..."}'

Record = tuple[str, str]  # id, text


def read_texts(path: Path, column: str | None) -> Iterator[Record]:
    """Yield id and text of each record in file order; the id is its `_id` or `id`, else its number from 0.

    column: column with the text (default: `text`, preceded by `title` as in BEIR); a `.txt` file, which
    may be .gz or .zst like the others, has one text per line.

    Raises:
        UsageError: if there is no such file or column.
        DataError: naming the file and line of a problem.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file", "Give a .txt, .jsonl, .tsv, .csv or .parquet file.")
    if is_zip(path):
        raise UsageError(f"{path}: is a zip", "Unpack it and name the file with the texts, such as corpus.jsonl.")
    inner = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    if inner.suffix == ".txt":
        if column is not None:
            raise UsageError(f"--column {column}: a .txt file has no columns; each line is a text")
        yield from _plain(path)
        return
    file = recognise(path, TEXT_EXAMPLE)
    if file.format == "Parquet":
        yield from _parquet(path, column)
    elif file.format in ("TSV", "CSV"):
        yield from _delimited(file, column)
    elif file.format == "JSON Lines":
        yield from _json(file, column)
    else:
        raise DataError(f"{path}: a JSON list cannot be encoded", "Write one object per line (.jsonl).")


def _plain(path: Path) -> Iterator[Record]:
    compression = COMPRESSIONS.get(path.suffix, "")
    with path.open("rb") as raw:
        require_utf8_kind(raw.read(SNIFFED), str(path))
    with TripleFile(path, "", compression).opened() as stream:
        # Blank lines also count as texts, so that row i of the embeddings is line i of the file.
        for place, line in enumerate(stream):
            if place == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
                require_line_ends(line, str(path))
            yield str(place), _decoded(line, f"{path}:{place + 1}").rstrip("\r\n")


def _json(file: TripleFile, column: str | None) -> Iterator[Record]:
    with file.opened() as stream:
        for place, (number, record) in enumerate(json_lines(stream, str(file.path))):
            where = f"{file.path}:{number}"
            if column is not None or TEXT not in record:
                _require_column(column or TEXT, list(record), where)
            yield _identity(record, place), _text(record, column, where)


def _delimited(file: TripleFile, column: str | None) -> Iterator[Record]:
    with file.opened() as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            # TSV has no quoting: a quote at the start of a cell would swallow the following lines.
            tsv, first = file.format == "TSV", _first_line(file)
            quoted = tsv and is_quoted_header(first.split("\t"))
            how: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tsv else {"strict": True}
            rows = csv.DictReader(lines, **({"delimiter": "\t", "strict": True} if quoted else how))
            _require_column(column or TEXT, list(rows.fieldnames or []), str(file.path))
            before: list[str] | None = None
            for place, row in enumerate(rows):
                where = f"{file.path}:{rows.line_num}"
                if tsv and not quoted:
                    cells = [cell or "" for cell in row.values() if isinstance(cell, str | None)]
                    if any(map(is_in_quotes, cells)) or (before and goes_on(before, cells, len(cells))):
                        raise quoted_cells(where)
                    before = cells
                if None in row or None in row.values():
                    raise DataError(f"{where}: {len(rows.fieldnames or [])} cells expected, as in the first line")
                yield _identity(row, place), _text(row, column, where)
        except UnicodeDecodeError as error:
            raise DataError(f"{file.path}: not UTF-8 text (byte {error.start})") from None
        except csv.Error as error:
            raise DataError(f"{file.path}: cannot be read: {error}") from None


def _first_line(file: TripleFile) -> str:
    """Read a file's first line.

    Raises:
        DataError: if it shows that the file's format does not match its name.
    """
    with file.opened() as stream:
        first = stream.readline()
    require_line_ends(first, str(file.path))
    require_no_zero_bytes(first, str(file.path))
    line = first.decode("utf-8-sig", "replace").rstrip("\r\n")
    require_delimiter(line, "\t" if file.format == "TSV" else ",", str(file.path))
    return line


def _parquet(path: Path, column: str | None) -> Iterator[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        _require_column(column or TEXT, names, str(path))
        wanted = [name for name in (*ID_COLUMNS, TITLE, column or TEXT) if name in names]
        place = 0
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=wanted):
            for row in batch.to_pylist():
                yield _identity(row, place), _text(row, column, f"{path}: row {place + 1}")
                place += 1
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


def _text(record: dict[str, Any], column: str | None, where: str) -> str:
    """Return a record's text. Empty texts are kept, because row numbers must not shift."""
    if column is not None:
        return text_of(record, column, where, required=False, strip=False)
    title = text_of(record, TITLE, where, required=False, strip=False) if TITLE in record else ""
    return f"{title} {text_of(record, TEXT, where, required=False, strip=False)}".strip()


def _identity(record: dict[str, Any], place: int) -> str:
    return next((str(record[name]) for name in ID_COLUMNS if record.get(name) is not None), str(place))


def _require_column(column: str, there: list[str], where: str) -> None:
    if column not in there:
        raise UsageError(
            f"{where}: no column {column!r}; {did_you_mean(column, [str(each) for each in there])}",
            "Name the column with the texts: --column NAME.",
        )


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text (byte {error.start})") from None
